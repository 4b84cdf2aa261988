// Runs a module on a CPU plugin.
#pragma once

#include <string>
#include <vector>

#include "op_case.h"
#include "ttpu/pjrt/client.h"

namespace ttpu::ir::testing {

// The CPU plugins of this machine, each with a client of two devices (kept for the process).
struct CpuPlugin {
  std::string name;
  pjrt::Client client;
};
const std::vector<CpuPlugin>& cpu_plugins();

// One device. Values of arguments and results as numbers.
std::vector<std::vector<double>> run(const pjrt::Client& client, const Module& module,
                                     const std::vector<std::vector<double>>& arguments);

// Runs the case and returns what differs from its expectations, "" when nothing does.
std::string check_case(const pjrt::Client& client, const OpCase& op_case);

}  // namespace ttpu::ir::testing
