// The CPU plugin, but for what a test asks of it: transfers to the device that arrive damaged,
// devices that are another process's, devices that stand in a grid as TPUs do, and devices that say
// they are GPUs with memory of their own. Everything else is the plugin's own.
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
std::atomic<int> g_columns{0};
std::atomic<int> g_megabytes{0};

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

PJRT_Error* id_of(PJRT_DeviceDescription* description, int* id) {
  PJRT_DeviceDescription_Id_Args args{};
  args.struct_size = PJRT_DeviceDescription_Id_Args_STRUCT_SIZE;
  args.device_description = description;
  PJRT_Error* error = g_real->PJRT_DeviceDescription_Id(&args);
  *id = args.id;
  return error;
}

PJRT_Error* is_own(PJRT_Device_IsAddressable_Args* args) {
  PJRT_Device_GetDescription_Args description{};
  description.struct_size = PJRT_Device_GetDescription_Args_STRUCT_SIZE;
  description.device = args->device;
  if (PJRT_Error* error = g_real->PJRT_Device_GetDescription(&description)) return error;
  int id = 0;
  PJRT_Error* error = id_of(description.device_description, &id);
  args->is_addressable = id >= g_hidden;
  return error;
}

PJRT_NamedValue named(const char* name) {
  PJRT_NamedValue value{};
  value.struct_size = PJRT_NamedValue_STRUCT_SIZE;
  value.name = name;
  value.name_size = std::strlen(name);
  return value;
}

PJRT_Error* attributes_of(PJRT_DeviceDescription_Attributes_Args* args) {
  const int columns = g_columns;
  if (columns == 0) return g_real->PJRT_DeviceDescription_Attributes(args);
  int id = 0;
  if (PJRT_Error* error = id_of(args->device_description, &id)) return error;
  static thread_local int64_t coordinates[2];
  static thread_local PJRT_NamedValue values[2];
  coordinates[0] = id % columns;
  coordinates[1] = id / columns;
  values[0] = named("coords");
  values[0].type = PJRT_NamedValue_kInt64List;
  values[0].int64_array_value = coordinates;
  values[0].value_size = 2;
  values[1] = named("core_on_chip");
  values[1].type = PJRT_NamedValue_kInt64;
  values[1].int64_value = 0;
  values[1].value_size = 1;
  args->attributes = values;
  args->num_attributes = 2;
  return nullptr;
}

PJRT_Error* platform_of(PJRT_Client_PlatformName_Args* args) {
  if (g_megabytes == 0) return g_real->PJRT_Client_PlatformName(args);
  args->platform_name = "cuda";
  args->platform_name_size = 4;
  return nullptr;
}

PJRT_Error* memory_of(PJRT_Device_MemoryStats_Args* args) {
  if (g_megabytes == 0) return g_real->PJRT_Device_MemoryStats(args);
  args->bytes_in_use = 0;
  args->bytes_limit = int64_t{g_megabytes} << 20;
  args->bytes_limit_is_set = true;
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
  g_api.PJRT_DeviceDescription_Attributes = attributes_of;
  g_api.PJRT_Client_PlatformName = platform_of;
  g_api.PJRT_Device_MemoryStats = memory_of;
  return true;
}

// The next so many lists of numbers arrive damaged.
extern "C" void faulty_damage(int count) { g_damaged = count; }

// The first so many devices of clients belong to another process.
extern "C" void faulty_hide(int count) { g_hidden = count; }

// Devices stand in rows of so many; 0: nowhere.
extern "C" void faulty_place(int columns) { g_columns = columns; }

// Clients are of platform cuda, and each device may use so many megabytes; 0: as they are.
extern "C" void faulty_gpu(int megabytes) { g_megabytes = megabytes; }

extern "C" const PJRT_Api* GetPjrtApi() { return &g_api; }
