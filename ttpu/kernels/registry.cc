#include "ttpu/kernels/registry.h"

#include <map>
#include <mutex>
#include <span>

#include "ttpu/base/error.h"
#include "ttpu/base/log.h"
#include "ttpu/kernels/cpu/handler.h"
#include "ttpu/kernels/linear/cpu/handlers.h"
#include "ttpu/kernels/norm/cpu/handlers.h"
#include "ttpu/kernels/ragged_paged_attention/cpu/handlers.h"
#include "ttpu/kernels/sampling/cpu/handlers.h"
#include "ttpu/pjrt/ffi.h"

namespace ttpu::kernels {
namespace {

// One line an operator with a CPU kernel.
constexpr std::span<const CpuHandler> (*kOperators[])() = {
    linear_cpu_handlers,
    attention_cpu_handlers,
    norm_cpu_handlers,
    sampling_cpu_handlers,
};

bool register_all(const pjrt::Plugin& plugin) {
  if (!pjrt::supports_ffi(plugin)) return false;
  try {
    for (const auto operator_handlers : kOperators) {
      for (const CpuHandler& handler : operator_handlers()) {
        pjrt::register_ffi_handler(plugin, handler.name, reinterpret_cast<void*>(handler.handler));
      }
    }
  } catch (const Error& error) {
    spdlog::debug("[kernels] {} takes no CPU kernels: {}", plugin.path().string(), error.what());
    return false;
  }
  return true;
}

}  // namespace

bool register_cpu_kernels(const pjrt::Plugin& plugin) {
  static std::mutex mutex;
  static std::map<const PJRT_Api*, bool> known;
  std::lock_guard lock(mutex);
  const auto found = known.find(plugin.api());
  if (found != known.end()) return found->second;
  return known[plugin.api()] = register_all(plugin);
}

}  // namespace ttpu::kernels
