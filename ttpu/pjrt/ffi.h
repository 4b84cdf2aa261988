// Custom calls: functions of ours that a plugin's compiled programs call.
#pragma once

#include <string_view>

#include "ttpu/pjrt/plugin.h"

namespace ttpu::pjrt {

// Whether the plugin takes custom-call handlers. Of the CPU plugins the newer does and 0.81 does
// not, since its FFI is older than the headers that handlers are built against.
bool supports_ffi(const Plugin& plugin);

// Registers `handler`, an XLA_FFI_Handler*, for `stablehlo.custom_call @target(...) {api_version =
// 4 : i32}` in every program of the plugin. `platform` is "Host" for CPU plugins. Registering the
// same pair of target and handler again does nothing. Throws kUnimplemented when the plugin takes
// none and kAlreadyExists when the target has another handler.
void register_ffi_handler(const Plugin& plugin, std::string_view target, void* handler,
                          std::string_view platform = "Host");

}  // namespace ttpu::pjrt
