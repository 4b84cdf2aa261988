// GPUs that programs are compiled for where none is: what they can do, and what XLA's compiler for
// CUDA asks of a device.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "ttpu/plan/chips.h"

namespace ttpu::plan {

// Peaks (dense), memory and links: NVIDIA's data sheets of A100 SXM, H100 SXM, H200 SXM and HGX
// B200, gigabytes of 10^9 bytes as they have them; a link's figure is half of the bidirectional
// one. The rest: the whitepapers of Ampere, Hopper and Blackwell, and the table of compute
// capabilities in the CUDA C++ programming guide.
struct Gpu {
  Chip chip;         // named as topologies are: "h100" of "h100:8"
  std::string kind;  // as CUDA names the device
  int major = 0;     // of the compute capability; the minor one is 0
  int64_t multiprocessors = 0;
  int64_t fp32_units = 0;     // of a multiprocessor
  int64_t shared_memory = 0;  // of a multiprocessor, bytes
  int64_t l2_cache = 0;       // bytes
  double clock_ghz = 0;
};

const std::vector<Gpu>& gpus();
std::vector<std::string> gpu_names();

// That of a topology's name, "h100" or "h100:8"; null where it names none.
const Gpu* gpu_of_topology(std::string_view topology);

// How many devices "h100" (one) or "h100:8" has. Throws kInvalidArgument for another form.
int64_t gpus_of_topology(std::string_view topology);

// What a device of any topology can do, a TPU's (chips.h) or a GPU's.
const Chip& device_of_topology(std::string_view topology);

// A stream_executor.GpuTargetConfigProto as text: a device of this kind for the compiler.
std::string target_config(const Gpu& gpu);

}  // namespace ttpu::plan
