#include "ttpu/pjrt/device.h"

#include "ttpu/pjrt/capi.h"

namespace ttpu::pjrt {
namespace {

PJRT_DeviceDescription* describe(const PJRT_Api* api, PJRT_Device* device) {
  TTPU_PJRT_ARGS(PJRT_Device_GetDescription_Args, args);
  args.device = device;
  check(api, api->PJRT_Device_GetDescription(&args), "device");
  return args.device_description;
}

}  // namespace

int Device::id() const {
  TTPU_PJRT_ARGS(PJRT_DeviceDescription_Id_Args, args);
  args.device_description = describe(api_, device_);
  check(api_, api_->PJRT_DeviceDescription_Id(&args), "device");
  return args.id;
}

std::string Device::kind() const {
  TTPU_PJRT_ARGS(PJRT_DeviceDescription_Kind_Args, args);
  args.device_description = describe(api_, device_);
  check(api_, api_->PJRT_DeviceDescription_Kind(&args), "device");
  return std::string(args.device_kind, args.device_kind_size);
}

std::string Device::description() const {
  TTPU_PJRT_ARGS(PJRT_DeviceDescription_ToString_Args, args);
  args.device_description = describe(api_, device_);
  check(api_, api_->PJRT_DeviceDescription_ToString(&args), "device");
  return std::string(args.to_string, args.to_string_size);
}

bool Device::addressable() const {
  TTPU_PJRT_ARGS(PJRT_Device_IsAddressable_Args, args);
  args.device = device_;
  check(api_, api_->PJRT_Device_IsAddressable(&args), "device");
  return args.is_addressable;
}

Options Device::attributes() const {
  TTPU_PJRT_ARGS(PJRT_DeviceDescription_Attributes_Args, args);
  args.device_description = describe(api_, device_);
  check(api_, api_->PJRT_DeviceDescription_Attributes(&args), "device");
  return from_named_values(args.attributes, args.num_attributes);
}

std::optional<MemoryStats> Device::memory_stats() const {
  TTPU_PJRT_ARGS(PJRT_Device_MemoryStats_Args, args);
  args.device = device_;
  if (PJRT_Error* error = api_->PJRT_Device_MemoryStats(&args); error != nullptr) {
    const Error ours = take_error(api_, error, "device");
    if (ours.code() == Code::kUnimplemented) return std::nullopt;
    throw Error(ours);
  }
  MemoryStats stats;
  stats.bytes_in_use = args.bytes_in_use;
  if (args.peak_bytes_in_use_is_set) stats.peak_bytes_in_use = args.peak_bytes_in_use;
  if (args.bytes_limit_is_set) stats.bytes_limit = args.bytes_limit;
  return stats;
}

}  // namespace ttpu::pjrt
