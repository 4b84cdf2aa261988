// The CPU plugin, but for what a test asks of it: transfers to the device that arrive damaged, and
// devices that are another process's. Everything else is the plugin's own.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <vector>

#include <dlfcn.h>
#include <pjrt_c_api.h>

namespace {

const PJRT_Api* g_real = nullptr;
PJRT_Api g_api;
std::atomic<int> g_damaged{0};
std::atomic<int> g_hidden{0};

PJRT_Error* from_host(PJRT_Client_BufferFromHostBuffer_Args* args) {
  if (g_damaged.load() == 0 || args->type != PJRT_Buffer_Type_S32 || args->num_dims != 1) {
    return g_real->PJRT_Client_BufferFromHostBuffer(args);
  }
  --g_damaged;
  std::vector<int32_t> noise(static_cast<size_t>(args->dims[0]), 1 << 20);
  const void* data = args->data;
  const auto semantics = args->host_buffer_semantics;
  args->data = noise.data();
  args->host_buffer_semantics = PJRT_HostBufferSemantics_kImmutableOnlyDuringCall;
  PJRT_Error* error = g_real->PJRT_Client_BufferFromHostBuffer(args);
  args->data = data;
  args->host_buffer_semantics = semantics;
  return error;
}

PJRT_Error* own_devices(PJRT_Client_AddressableDevices_Args* args) {
  PJRT_Error* error = g_real->PJRT_Client_AddressableDevices(args);
  const size_t hidden = std::min<size_t>(g_hidden, args->num_addressable_devices);
  args->addressable_devices += hidden;
  args->num_addressable_devices -= hidden;
  return error;
}

PJRT_Error* is_own(PJRT_Device_IsAddressable_Args* args) {
  PJRT_Device_GetDescription_Args description{};
  description.struct_size = PJRT_Device_GetDescription_Args_STRUCT_SIZE;
  description.device = args->device;
  if (PJRT_Error* error = g_real->PJRT_Device_GetDescription(&description)) return error;
  PJRT_DeviceDescription_Id_Args id{};
  id.struct_size = PJRT_DeviceDescription_Id_Args_STRUCT_SIZE;
  id.device_description = description.device_description;
  if (PJRT_Error* error = g_real->PJRT_DeviceDescription_Id(&id)) return error;
  args->is_addressable = id.id >= g_hidden;
  return nullptr;
}

}  // namespace

// To be called before the plugin is loaded.
extern "C" bool faulty_load(const char* path) {
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return false;
  const auto get = reinterpret_cast<const PJRT_Api* (*)()>(dlsym(library, "GetPjrtApi"));
  if (get == nullptr) return false;
  g_real = get();
  std::memcpy(&g_api, g_real, std::min(sizeof g_api, g_real->struct_size));
  g_api.struct_size = std::min(sizeof g_api, g_real->struct_size);
  g_api.PJRT_Client_BufferFromHostBuffer = from_host;
  g_api.PJRT_Client_AddressableDevices = own_devices;
  g_api.PJRT_Device_IsAddressable = is_own;
  return true;
}

// The next so many lists of numbers arrive damaged.
extern "C" void faulty_damage(int count) { g_damaged = count; }

// The first so many devices of clients belong to another process.
extern "C" void faulty_hide(int count) { g_hidden = count; }

extern "C" const PJRT_Api* GetPjrtApi() { return &g_api; }
