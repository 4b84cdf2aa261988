// Named values: create options of clients and topologies, overrides of compile options, attributes
// of plugins and devices, properties of a cost analysis.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

namespace ttpu::pjrt {

using OptionValue = std::variant<std::string, int64_t, bool, float, std::vector<int64_t>>;
using Options = std::map<std::string, OptionValue>;

// "4", "true", "[1, 2]", "v5e": for tables and messages.
std::string option_to_string(const OptionValue& value);

}  // namespace ttpu::pjrt
