#include "ttpu/engine/device.h"

#include "ttpu/base/error.h"
#include "ttpu/plan/chips.h"

namespace ttpu::engine {

pjrt::Client make_client(const std::string& device, int64_t num_devices) {
  const auto plugin = pjrt::load_plugin(pjrt::find_plugin(device));
  pjrt::Options options;
  if (num_devices > 1 && device.find("cpu") != std::string::npos) {
    options["cpu_device_count"] = num_devices;
  }
  pjrt::Client client = pjrt::Client::create(plugin, options);
  const auto found = static_cast<int64_t>(client.devices().size());
  if (found < num_devices) {
    fail(Code::kFailedPrecondition,
         "[parallel] {} devices are wanted, '{}' has {}; lower --tensor-parallel-size or "
         "--data-parallel-size",
         num_devices, device, found);
  }
  return client;
}

kernels::Target target_of(const pjrt::Client& client, bool custom_calls) {
  kernels::Target target;
  const std::string platform = client.platform_name();
  target.platform = platform == "cpu"   ? kernels::Platform::kCpu
                    : platform == "tpu" ? kernels::Platform::kTpu
                                        : kernels::Platform::kCuda;
  target.custom_calls = custom_calls && target.platform == kernels::Platform::kCpu &&
                        kernels::register_cpu_kernels(client.plugin());
  if (custom_calls && target.platform == kernels::Platform::kTpu) {
    const plan::Chip* chip = plan::chip_of_kind(client.devices().at(0).kind());
    if (chip != nullptr) target.tpu = std::make_shared<kernels::TpuKernels>(chip->name);
  }
  return target;
}

std::vector<std::string> kinds_of(const pjrt::Client& client, int64_t count) {
  std::vector<std::string> kinds;
  for (int64_t i = 0; i < count; ++i) {
    kinds.push_back(client.devices().at(static_cast<size_t>(i)).kind());
  }
  return kinds;
}

}  // namespace ttpu::engine
