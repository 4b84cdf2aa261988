#include "ttpu/plan/gpus.h"

#include <charconv>

#include "ttpu/base/error.h"

namespace ttpu::plan {
namespace {

constexpr int64_t kGB = 1'000'000'000;
constexpr int64_t kKiB = 1024;
constexpr int64_t kMiB = 1024 * kKiB;

Chip chip(const char* name, double bf16, double int8, double fp8, int64_t memory, double bandwidth,
          double link) {
  Chip chip;
  chip.name = name;
  chip.bf16_flops = bf16;
  chip.int8_ops = int8;
  chip.fp8_flops = fp8;
  chip.hbm_bytes = memory;
  chip.hbm_bandwidth = bandwidth;
  chip.ici_bandwidth = link;
  return chip;
}

}  // namespace

const std::vector<Gpu>& gpus() {
  static const std::vector<Gpu> kGpus = {
      {chip("a100", 312e12, 624e12, 0, 80 * kGB, 2039e9, 300e9), "NVIDIA A100-SXM4-80GB", 8, 108,
       64, 164 * kKiB, 40 * kMiB, 1.41},
      {chip("h100", 989e12, 1979e12, 1979e12, 80 * kGB, 3350e9, 450e9), "NVIDIA H100 80GB HBM3", 9,
       132, 128, 228 * kKiB, 50 * kMiB, 1.98},
      {chip("h200", 989e12, 1979e12, 1979e12, 141 * kGB, 4800e9, 450e9), "NVIDIA H200", 9, 132, 128,
       228 * kKiB, 50 * kMiB, 1.98},
      {chip("b200", 2250e12, 4500e12, 4500e12, 180 * kGB, 7700e9, 900e9), "NVIDIA B200", 10, 148,
       128, 228 * kKiB, 126 * kMiB, 1.965},
  };
  return kGpus;
}

const Gpu* gpu_of_topology(std::string_view topology) {
  const std::string_view name = topology.substr(0, topology.find(':'));
  for (const Gpu& gpu : gpus()) {
    if (gpu.chip.name == name) return &gpu;
  }
  return nullptr;
}

std::vector<std::string> gpu_names() {
  std::vector<std::string> names;
  for (const Gpu& gpu : gpus()) names.push_back(gpu.chip.name);
  return names;
}

const Chip& device_of_topology(std::string_view topology) {
  const Gpu* gpu = gpu_of_topology(topology);
  return gpu != nullptr ? gpu->chip : chip_of_topology(topology);
}

int64_t gpus_of_topology(std::string_view topology) {
  const size_t colon = topology.find(':');
  if (colon == std::string_view::npos) return 1;
  const std::string_view text = topology.substr(colon + 1);
  int64_t count = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
  require(error == std::errc() && end == text.data() + text.size() && count >= 1 && count <= 1024,
          "[topology] \"{}\" has '{}' GPUs; write GPU:NUMBER, such as h100:8", topology, text);
  return count;
}

std::string target_config(const Gpu& gpu) {
  // A block may take all shared memory of a multiprocessor but 1 KiB. The versions are those that
  // `ttpu plugin install cuda` brings, rounded down.
  return fmt::format(
      R"(gpu_device_info {{
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: {optin}
  shared_memory_per_core: {shared}
  core_count: {cores}
  fpus_per_core: {units}
  clock_rate_ghz: {clock}
  l2_cache_size: {l2}
  memory_bandwidth: {bandwidth:.0f}
  device_memory_size: {memory}
  cuda_compute_capability {{ major: {major} feature_extension: {extension} }}
  name: "{kind}"
  device_vendor: "NVIDIA Corporation"
  platform_version: "Compute Capability {major}.0"
  driver_version: "13.0.0"
  runtime_version: "13.0.0"
  compile_time_toolkit_version: "13.0.0"
  dnn_version: "9.12.0"
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 12 }}
runtime_version {{ major: 13 }}
device_description_str: "{kind}"
)",
      fmt::arg("optin", gpu.shared_memory - kKiB), fmt::arg("shared", gpu.shared_memory),
      fmt::arg("cores", gpu.multiprocessors), fmt::arg("units", gpu.fp32_units),
      fmt::arg("clock", gpu.clock_ghz), fmt::arg("l2", gpu.l2_cache),
      fmt::arg("bandwidth", gpu.chip.hbm_bandwidth), fmt::arg("memory", gpu.chip.hbm_bytes),
      fmt::arg("major", gpu.major),
      fmt::arg("extension", gpu.major >= 9 ? "ACCELERATED_FEATURES" : "NONE"),
      fmt::arg("kind", gpu.kind));
}

}  // namespace ttpu::plan
