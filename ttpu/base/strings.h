// Texts of flags, variables and files, taken apart.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ttpu {

// What stands between the separators. One at the end begins nothing: "a," is {"a"}, "" is {}.
std::vector<std::string> split(std::string_view text, char separator);

// Nothing unless the whole text is a decimal number from 0 on that an int holds.
std::optional<int> parse_count(std::string_view text);

}  // namespace ttpu
