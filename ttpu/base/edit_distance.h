// How unlike two names are, for "did you mean" in errors.
#pragma once

#include <cstddef>
#include <string_view>

namespace ttpu {

// Insertions, deletions and replacements that turn one into the other (Levenshtein).
size_t edit_distance(std::string_view a, std::string_view b);

}  // namespace ttpu
