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

// A module for one device, compiled once. Values of arguments and results as numbers.
class Program {
 public:
  Program(const pjrt::Client& client, const Module& module);
  std::vector<std::vector<double>> operator()(
      const std::vector<std::vector<double>>& arguments) const;

 private:
  const pjrt::Client& client_;
  std::vector<Shape> shapes_;
  pjrt::LoadedExecutable program_;
};
// One that runs once.
std::vector<std::vector<double>> run(const pjrt::Client& client, const Module& module,
                                     const std::vector<std::vector<double>>& arguments);

// Runs the case and returns what differs from its expectations, "" when nothing does.
std::string check_case(const pjrt::Client& client, const OpCase& op_case);

}  // namespace ttpu::ir::testing
