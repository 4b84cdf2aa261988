// Private to ttpu/pjrt: the text of wheels.json, put into the program when it is configured.
#pragma once

#include <string_view>

namespace ttpu::pjrt {

extern const std::string_view kWheelsJson;

}  // namespace ttpu::pjrt
