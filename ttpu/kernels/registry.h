// Which implementation of an operator a program gets. Every operator has `reference` (pure
// StableHLO, any platform); some have `cpu` (a custom call that the CPU plugin makes through XLA's
// FFI) or `tpu` (a Mosaic kernel, see tpu/tpu_kernels.h). The choice is made while the program is
// built.
#pragma once

#include <memory>

#include "ttpu/kernels/tpu/tpu_kernels.h"
#include "ttpu/pjrt/plugin.h"

namespace ttpu::kernels {

enum class Platform { kCpu, kTpu, kCuda };

struct Target {
  Platform platform = Platform::kCpu;
  // Programs may call kernels of ours. For CPU: only where register_cpu_kernels said true.
  bool custom_calls = false;
  std::shared_ptr<TpuKernels> tpu = nullptr;  // for TPU: where kernels come from, or none
  int64_t matrix_unit = 128;                  // of a TPU: rows that are multiplied at once

  bool cpu_kernels() const { return platform == Platform::kCpu && custom_calls; }
};

// Registers every CPU kernel with the plugin, once a process and plugin. False when the plugin
// takes no handlers or not this version of them: then build programs with custom_calls = false.
bool register_cpu_kernels(const pjrt::Plugin& plugin);

}  // namespace ttpu::kernels
