// The page at `/`: page.html, in the program.
#pragma once

#include <string_view>

namespace ttpu::server {

std::string_view page_html();

}  // namespace ttpu::server
