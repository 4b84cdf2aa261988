// UTF-8 as the Unicode standard defines it: no overlong forms, no surrogates.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace ttpu {

// Bytes of the UTF-8 character that `text` begins with; 0 when it is not one.
size_t utf8_length(std::string_view text);
bool utf8_valid(std::string_view text);
// Each byte that belongs to no character becomes U+FFFD.
std::string utf8_repaired(std::string_view text);

}  // namespace ttpu
