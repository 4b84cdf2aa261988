#include "ttpu/engine/device.h"

namespace ttpu::engine {

pjrt::Client make_client(const std::string& device) {
  return pjrt::Client::create(pjrt::load_plugin(pjrt::find_plugin(device)));
}

kernels::Target target_of(const pjrt::Client& client, bool custom_calls) {
  kernels::Target target;
  const std::string platform = client.platform_name();
  target.platform = platform == "cpu"   ? kernels::Platform::kCpu
                    : platform == "tpu" ? kernels::Platform::kTpu
                                        : kernels::Platform::kCuda;
  target.custom_calls = custom_calls && target.platform == kernels::Platform::kCpu &&
                        kernels::register_cpu_kernels(client.plugin());
  return target;
}

}  // namespace ttpu::engine
