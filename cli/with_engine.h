// An engine for a command: of this process, or under `ttpu launch` of all that it has started.
#pragma once

#include <functional>

#include "cli/model_flags.h"

namespace ttpu::cli {

// One of the processes of `ttpu launch` but the first: it has nothing to say.
bool follows_another();

// Loads the engine and calls `lead` with it. Under `ttpu launch` every process loads it, the first
// one leads, and the others do its steps until `lead` returns. What one of them throws ends all.
using Lead = std::function<void(engine::Engine&)>;
void with_engine(const std::filesystem::path& path, engine::EngineOptions options, const Lead& lead,
                 const engine::Progress& progress = {});
void with_engine(const ModelFlags& flags, const Lead& lead);

}  // namespace ttpu::cli
