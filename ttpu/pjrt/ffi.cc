#include "ttpu/pjrt/ffi.h"

#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <tuple>
#include <type_traits>

#include "ttpu/pjrt/capi.h"

// The FFI extension as OpenXLA publishes it (xla/pjrt/c/pjrt_c_api_ffi_extension.h). Not part of
// the C header.
extern "C" {
struct TtpuFfiRegisterHandlerArgs {
  size_t struct_size;
  const char* target_name;
  size_t target_name_size;
  void* handler;
  const char* platform_name;
  size_t platform_name_size;
  int traits;
};
struct TtpuFfiExtension {
  PJRT_Extension_Base base;
  void* type_register;
  void* user_data_add;
  PJRT_Error* (*register_handler)(TtpuFfiRegisterHandlerArgs* args);
};
}

namespace ttpu::pjrt {
namespace {

// Handlers are built against the FFI headers that belong to this version of the C API. An older
// plugin drops them without a word when they are registered (0.81 does), so they are not offered.
constexpr int kOldestMinor = 115;

// A newer plugin has extensions that the header's enumeration does not know: read as a number.
bool is_ffi(const PJRT_Extension_Base& extension) {
  std::underlying_type_t<PJRT_Extension_Type> type{};
  std::memcpy(&type, &extension.type, sizeof type);
  return type == PJRT_Extension_Type_FFI;
}

const TtpuFfiExtension* find_extension(const Plugin& plugin) {
  if (plugin.api_minor() < kOldestMinor) return nullptr;
  for (const PJRT_Extension_Base* it = plugin.api()->extension_start; it != nullptr;
       it = it->next) {
    if (!is_ffi(*it)) continue;
    if (it->struct_size < sizeof(TtpuFfiExtension)) return nullptr;
    const auto* extension = reinterpret_cast<const TtpuFfiExtension*>(it);
    return extension->register_handler == nullptr ? nullptr : extension;
  }
  return nullptr;
}

}  // namespace

bool supports_ffi(const Plugin& plugin) { return find_extension(plugin) != nullptr; }

void register_ffi_handler(const Plugin& plugin, std::string_view target, void* handler,
                          std::string_view platform) {
  const TtpuFfiExtension* extension = find_extension(plugin);
  if (extension == nullptr) {
    fail(
        Code::kUnimplemented,
        "[ffi] the plugin '{}' (PJRT API {}.{}) takes no custom calls as TTPU builds them, so '{}' "
        "cannot be registered; use the operator's reference, or a plugin of API 0.{} or later",
        plugin.path().string(), plugin.api_major(), plugin.api_minor(), target, kOldestMinor);
  }
  require(handler != nullptr, "[ffi] no handler was given for '{}'", target);

  static std::mutex mutex;
  static auto& registered =
      *new std::map<std::tuple<const PJRT_Api*, std::string, std::string>, void*>();
  const std::lock_guard lock(mutex);
  const std::tuple key(plugin.api(), std::string(target), std::string(platform));
  if (const auto found = registered.find(key); found != registered.end()) {
    if (found->second == handler) return;
    fail(Code::kAlreadyExists, "[ffi] '{}' has another handler already for {}; choose another name",
         target, platform);
  }
  TtpuFfiRegisterHandlerArgs args{};
  args.struct_size = sizeof(args);
  args.target_name = target.data();
  args.target_name_size = target.size();
  args.handler = handler;
  args.platform_name = platform.data();
  args.platform_name_size = platform.size();
  check(plugin.api(), extension->register_handler(&args), "ffi");
  registered.emplace(key, handler);
}

}  // namespace ttpu::pjrt
