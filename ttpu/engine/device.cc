#include "ttpu/engine/device.h"

#include <algorithm>
#include <numeric>

#include <fmt/ranges.h>

#include "ttpu/base/error.h"
#include "ttpu/base/log.h"
#include "ttpu/parallel/arrangement.h"
#include "ttpu/parallel/strategy.h"
#include "ttpu/pjrt/install.h"
#include "ttpu/plan/chips.h"

namespace ttpu::engine {
namespace {

// As arrange(), where the plugin says where devices stand.
std::vector<size_t> order_of(const std::vector<pjrt::Options>& devices,
                             const parallel::Mesh& mesh) {
  std::vector<parallel::Position> positions;
  for (const pjrt::Options& attributes : devices) {
    const auto coordinates = attributes.find("coords");
    const auto core = attributes.find("core_on_chip");
    parallel::Position position;
    if (coordinates != attributes.end() && core != attributes.end()) {
      position = {std::get<std::vector<int64_t>>(coordinates->second),
                  std::get<int64_t>(core->second)};
    }
    positions.push_back(std::move(position));
  }
  return parallel::arrange(positions, mesh.size(parallel::kTensorAxis));
}

// By an attribute that it alone has.
bool is_cuda(const pjrt::Plugin& plugin) { return plugin.attributes().contains("cuda_version"); }

}  // namespace

pjrt::Options client_options(const pjrt::Plugin& plugin, const std::string& device,
                             int64_t num_devices, double memory_fraction) {
  pjrt::Options options;
  if (is_cuda(plugin)) {
    options["memory_fraction"] = static_cast<float>(memory_fraction);
    options["preallocate"] = true;
    std::vector<int64_t> visible(static_cast<size_t>(num_devices));
    std::iota(visible.begin(), visible.end(), 0);
    options["visible_devices"] = std::move(visible);
  } else if (num_devices > 1 && device.find("cpu") != std::string::npos) {
    options["cpu_device_count"] = num_devices;
  }
  return options;
}

namespace {

pjrt::Client create_client(const std::string& device, int64_t num_devices, double memory_fraction) {
  const auto plugin = pjrt::load_plugin(pjrt::find_plugin(device));
  const pjrt::Options options = client_options(*plugin, device, num_devices, memory_fraction);
  if (!is_cuda(*plugin)) return pjrt::Client::create(plugin, options);
  const std::vector<std::string> missing = pjrt::missing_parts(plugin->path());
  const std::string advice =
      missing.empty() ? ""
                      : fmt::format("; it lacks {}, which `ttpu plugin install cuda` brings",
                                    fmt::join(missing, ", "));
  if (!missing.empty()) spdlog::warn("[device] '{}'{}", plugin->path().string(), advice);
  try {
    return pjrt::Client::create(plugin, options);
  } catch (const Error& error) {
    fail(
        error.code(),
        "[device] the CUDA plugin found no GPU to work with ({}). `nvidia-smi` must list one, with "
        "a driver for CUDA 13 (580 or newer), and CUDA_VISIBLE_DEVICES must not hide it{}",
        error.what(), advice);
  }
}

}  // namespace

pjrt::Client make_client(const std::string& device, int64_t num_devices, double memory_fraction) {
  pjrt::Client client = create_client(device, num_devices, memory_fraction);
  const auto found = static_cast<int64_t>(client.all_devices().size());
  if (found < num_devices) {
    fail(Code::kFailedPrecondition,
         "[parallel] {} devices are wanted, '{}' has {}; lower --tensor-parallel-size, "
         "--pipeline-parallel-size or --data-parallel-size",
         num_devices, device, found);
  }
  return client;
}

namespace {

kernels::Platform platform_named(const std::string& name) {
  return name == "cpu"   ? kernels::Platform::kCpu
         : name == "tpu" ? kernels::Platform::kTpu
                         : kernels::Platform::kCuda;
}

}  // namespace

kernels::Platform platform_of(const pjrt::Client& client) {
  return platform_named(client.platform_name());
}

int64_t usable_memory(kernels::Platform platform, int64_t bytes, double memory_fraction) {
  constexpr double kBesidePrograms = 0.9;
  const double share =
      platform == kernels::Platform::kCuda ? memory_fraction * kBesidePrograms : memory_fraction;
  return static_cast<int64_t>(static_cast<double>(bytes) * share);
}

int64_t usable_memory(const pjrt::Client& client, double memory_fraction) {
  const kernels::Platform platform = platform_of(client);
  const std::optional<pjrt::MemoryStats> stats = client.devices().at(0).memory_stats();
  if (!stats || !stats->bytes_limit) {
    fail(Code::kUnavailable,
         "[cache] the plugin '{}' does not say how much memory a device has; give --num-blocks",
         client.plugin().path().string());
  }
  // The limit of the CUDA plugin is the fraction that it was given.
  const double whole = platform == kernels::Platform::kCuda ? memory_fraction : 1;
  const auto bytes = static_cast<int64_t>(static_cast<double>(*stats->bytes_limit) / whole);
  return usable_memory(platform, bytes, memory_fraction) - stats->bytes_in_use;
}

namespace {

// Null where devices are no TPUs, or none that are known.
const plan::Chip* tpu_of(const pjrt::Client& client) {
  if (platform_of(client) != kernels::Platform::kTpu) return nullptr;
  return plan::chip_of_kind(client.devices().at(0).kind());
}

}  // namespace

kernels::Target target_of(const pjrt::Client& client, bool custom_calls) {
  kernels::Target target;
  target.platform = platform_of(client);
  target.custom_calls = custom_calls && target.platform == kernels::Platform::kCpu &&
                        kernels::register_cpu_kernels(client.plugin());
  const plan::Chip* chip = tpu_of(client);
  return chip == nullptr ? target : tpu_target(*chip, custom_calls);
}

int64_t tpu_memory(const pjrt::Client& client) {
  const plan::Chip* chip = tpu_of(client);
  return chip == nullptr ? 0 : chip->hbm_bytes;
}

kernels::Target tpu_target(const plan::Chip& chip, bool custom_calls) {
  kernels::Target target;
  target.platform = kernels::Platform::kTpu;
  if (custom_calls) target.tpu = std::make_shared<kernels::TpuKernels>(chip.name);
  target.matrix_unit = chip.matrix_unit;
  return target;
}

std::vector<std::string> kinds_of(const pjrt::Client& client, const parallel::Mesh& mesh) {
  std::vector<std::string> kinds;
  for (const pjrt::Device& device : mesh_devices(client, mesh)) kinds.push_back(device.kind());
  return kinds;
}

std::vector<pjrt::Device> mesh_devices(const pjrt::Client& client, const parallel::Mesh& mesh) {
  const int64_t count = mesh.num_devices();
  std::vector<pjrt::Device> devices = client.devices();
  if (static_cast<int64_t>(devices.size()) < count) {
    devices = client.all_devices();
    std::sort(devices.begin(), devices.end(),
              [](const pjrt::Device& a, const pjrt::Device& b) { return a.id() < b.id(); });
  }
  devices.resize(static_cast<size_t>(count));
  std::vector<pjrt::Options> attributes;
  for (const pjrt::Device& device : devices) attributes.push_back(device.attributes());
  std::vector<pjrt::Device> ordered;
  for (const size_t place : order_of(attributes, mesh)) ordered.push_back(devices[place]);
  return ordered;
}

std::vector<OwnDevice> own_devices(const pjrt::Client& client, const parallel::Mesh& mesh) {
  std::vector<OwnDevice> own;
  int64_t place = 0;
  for (const pjrt::Device& device : mesh_devices(client, mesh)) {
    if (device.addressable()) own.push_back({place, device});
    ++place;
  }
  return own;
}

pjrt::Options compiler_hints(kernels::Platform platform) {
  if (platform != kernels::Platform::kTpu) return {};
  // Weights are fetched ahead beside products and kernels that read HBM themselves. By default a
  // copy counts with all of its bandwidth, and products wait for copies that set out too late. So
  // do sends: with products counted as half as long, two of them are put beside a send.
  return {{"xla_tpu_async_copy_bandwidth_scaling_factor", 0.5F},
          {"xla_lhs_output_fusion_latency_multiplier", 0.5F}};
}

pjrt::CompileOptions compile_options(const pjrt::Client& client, const parallel::Mesh& mesh) {
  pjrt::CompileOptions options;
  options.hints = compiler_hints(platform_of(client));
  options.num_partitions = static_cast<int>(mesh.num_devices());
  std::vector<int> ids;
  for (const pjrt::Device& device : mesh_devices(client, mesh)) ids.push_back(device.id());
  // Of several processes each would choose for itself.
  const bool shared = client.all_devices().size() > client.devices().size();
  if (shared || !std::is_sorted(ids.begin(), ids.end())) options.device_assignment = ids;
  return options;
}

pjrt::CompileOptions compile_options(const pjrt::Topology& topology, const parallel::Mesh& mesh) {
  std::vector<pjrt::TopologyDevice> devices = topology.devices();
  std::sort(devices.begin(), devices.end(),
            [](const auto& a, const auto& b) { return a.id < b.id; });
  std::vector<pjrt::Options> attributes;
  for (const pjrt::TopologyDevice& device : devices) attributes.push_back(device.attributes);
  pjrt::CompileOptions options;
  options.hints = compiler_hints(platform_named(topology.platform_name()));
  options.num_partitions = static_cast<int>(devices.size());
  for (const size_t place : order_of(attributes, mesh)) {
    options.device_assignment.push_back(devices[place].id);
  }
  return options;
}

}  // namespace ttpu::engine
