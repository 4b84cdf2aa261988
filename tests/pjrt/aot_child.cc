// Compiles the program on standard input for a TPU topology and prints what came of it as JSON.
#include <iostream>
#include <iterator>
#include <string>

#include "ttpu/base/json.h"
#include "ttpu/pjrt/topology.h"

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  try {
    const std::string program(std::istreambuf_iterator<char>(std::cin), {});
    const auto topology = ttpu::pjrt::Topology::create(ttpu::pjrt::load_plugin(argv[1]), argv[2]);
    ttpu::pjrt::CompileOptions options;
    options.num_partitions = static_cast<int>(topology.devices().size());
    const ttpu::pjrt::Executable executable = topology.compile(program, options);
    ttpu::Json json;
    json["platform"] = topology.platform_name();
    json["devices"] = topology.devices().size();
    json["kind"] = topology.devices().at(0).kind;
    json["attributes"] = topology.devices().at(0).attributes.size();
    json["arguments"] = executable.memory_stats().arguments;
    json["outputs"] = executable.memory_stats().outputs;
    json["temporaries"] = executable.memory_stats().temporaries;
    json["code"] = executable.memory_stats().generated_code;
    for (const auto& [name, value] : executable.cost_analysis()) {
      json["cost"][name] = ttpu::pjrt::option_to_string(value);
    }
    json["format"] = executable.optimized_program().format;
    json["program_bytes"] = executable.optimized_program().code.size();
    json["serialized_bytes"] = executable.serialize().size();
    json["fingerprint"] = executable.fingerprint();
    std::cout << json.dump() << "\n";
    return 0;
  } catch (const ttpu::Error& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
