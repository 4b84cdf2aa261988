// How often a loop turns.
#pragma once

#include <cstdint>
#include <optional>

#include "ttpu/ir/operation.h"

namespace ttpu::plan {

// Of a `while` that counts: a carried integer starts at a constant, grows by a constant each turn,
// and is compared with a constant. Nothing for any other loop.
std::optional<int64_t> trip_count(const ir::Operation& loop);

}  // namespace ttpu::plan
