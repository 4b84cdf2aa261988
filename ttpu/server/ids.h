// Names of requests and answers.
#pragma once

#include <string>
#include <string_view>

namespace ttpu::server {

// `prefix` and 32 random hexadecimal digits.
std::string random_id(std::string_view prefix);
// What a client may call its request: 1 to 128 letters, digits and `-_.:`.
bool is_good_id(std::string_view id);

}  // namespace ttpu::server
