#include "ttpu/pjrt/client.h"

#include <algorithm>
#include <utility>

#include <sys/mman.h>

#include "ttpu/pjrt/capi.h"
#include "ttpu/pjrt/nibbles.h"

namespace ttpu::pjrt {
namespace {

PJRT_HostBufferSemantics to_c(HostBufferSemantics semantics) {
  switch (semantics) {
    case HostBufferSemantics::kCopy:
      return PJRT_HostBufferSemantics_kImmutableOnlyDuringCall;
    case HostBufferSemantics::kImmutableUntilDone:
      return PJRT_HostBufferSemantics_kImmutableUntilTransferCompletes;
    case HostBufferSemantics::kZeroCopy:
      return PJRT_HostBufferSemantics_kImmutableZeroCopy;
    case HostBufferSemantics::kMutableZeroCopy:
      return PJRT_HostBufferSemantics_kMutableZeroCopy;
  }
  fail(Code::kInternal, "[client] unknown host buffer semantics");
}

std::string client_platform(const PJRT_Api* api, PJRT_Client* client) {
  TTPU_PJRT_ARGS(PJRT_Client_PlatformName_Args, args);
  args.client = client;
  check(api, api->PJRT_Client_PlatformName(&args), "client");
  return std::string(args.platform_name, args.platform_name_size);
}

std::vector<Device> wrap_devices(const PJRT_Api* api, PJRT_Device* const* devices, size_t count) {
  std::vector<Device> result;
  result.reserve(count);
  for (size_t i = 0; i < count; ++i) result.emplace_back(api, devices[i]);
  return result;
}

}  // namespace

ClientHandle::ClientHandle(std::shared_ptr<const Plugin> plugin, const Options& options)
    : plugin_(std::move(plugin)), api_(plugin_->api()) {
  const std::vector<PJRT_NamedValue> values = to_named_values(options);
  TTPU_PJRT_ARGS(PJRT_Client_Create_Args, args);
  args.create_options = values.data();
  args.num_options = values.size();
  check(api_, api_->PJRT_Client_Create(&args), "client");
  client_ = args.client;
  shares_host_memory_ = client_platform(api_, client_) == "cpu";
}

ClientHandle::~ClientHandle() {
  TTPU_PJRT_ARGS(PJRT_Client_Destroy_Args, args);
  args.client = client_;
  if (PJRT_Error* error = api_->PJRT_Client_Destroy(&args); error != nullptr) {
    take_error(api_, error, "client");
  }
}

Client::Client(std::shared_ptr<const ClientHandle> handle) : handle_(std::move(handle)) {
  TTPU_PJRT_ARGS(PJRT_Client_AddressableDevices_Args, args);
  args.client = handle_->get();
  const PJRT_Api* api = handle_->api();
  check(api, api->PJRT_Client_AddressableDevices(&args), "client");
  devices_ = wrap_devices(api, args.addressable_devices, args.num_addressable_devices);
}

Client Client::create(std::shared_ptr<const Plugin> plugin, const Options& options) {
  require(plugin != nullptr, "[client] no plugin was given; load one with load_plugin");
  return Client(std::make_shared<const ClientHandle>(std::move(plugin), options));
}

std::string Client::platform_name() const {
  return client_platform(handle_->api(), handle_->get());
}

std::string Client::platform_version() const {
  TTPU_PJRT_ARGS(PJRT_Client_PlatformVersion_Args, args);
  args.client = handle_->get();
  const PJRT_Api* api = handle_->api();
  check(api, api->PJRT_Client_PlatformVersion(&args), "client");
  return std::string(args.platform_version, args.platform_version_size);
}

std::vector<Device> Client::all_devices() const {
  TTPU_PJRT_ARGS(PJRT_Client_Devices_Args, args);
  args.client = handle_->get();
  const PJRT_Api* api = handle_->api();
  check(api, api->PJRT_Client_Devices(&args), "client");
  return wrap_devices(api, args.devices, args.num_devices);
}

LoadedExecutable Client::compile(std::string_view program, const CompileOptions& options) const {
  constexpr std::string_view kFormat = "mlir";
  std::string code(program);  // PJRT takes a pointer to mutable text
  TTPU_PJRT_ARGS(PJRT_Program, source);
  source.code = code.data();
  source.code_size = code.size();
  source.format = kFormat.data();
  source.format_size = kFormat.size();
  TTPU_PJRT_ARGS(PJRT_Client_Compile_Args, args);
  args.client = handle_->get();
  args.program = &source;
  const PJRT_Api* api = handle_->api();
  compile_with_hints(options, [&](const std::string& encoded) {
    args.compile_options = encoded.data();
    args.compile_options_size = encoded.size();
    check(api, api->PJRT_Client_Compile(&args), "compile");
  });
  return LoadedExecutable(handle_, args.executable);
}

LoadedExecutable Client::load(std::string_view serialized) const {
  TTPU_PJRT_ARGS(PJRT_Executable_DeserializeAndLoad_Args, args);
  args.client = handle_->get();
  args.serialized_executable = serialized.data();
  args.serialized_executable_size = serialized.size();
  const PJRT_Api* api = handle_->api();
  check(api, api->PJRT_Executable_DeserializeAndLoad(&args), "load executable");
  return LoadedExecutable(handle_, args.loaded_executable);
}

Transfer Client::transfer(const void* data, const Shape& shape, HostBufferSemantics semantics,
                          std::shared_ptr<const void> keep_alive) const {
  if (devices_.empty()) {
    fail(Code::kInvalidArgument, "[client] this process has no device to transfer {} to",
         shape.to_string());
  }
  return transfer(data, shape, devices_[0], semantics, std::move(keep_alive));
}

Transfer Client::transfer(const void* data, const Shape& shape, const Device& device,
                          HostBufferSemantics semantics,
                          std::shared_ptr<const void> keep_alive) const {
  if (bit_width(shape.dtype) != 4) {
    return transfer_unpacked(data, shape, device, semantics, std::move(keep_alive));
  }
  const std::vector<uint8_t> unpacked =
      unpack_nibbles(static_cast<const uint8_t*>(data), static_cast<size_t>(shape.num_elements()),
                     is_signed_int(shape.dtype));
  return transfer_unpacked(unpacked.data(), shape, device, HostBufferSemantics::kCopy,
                           std::move(keep_alive));
}

Transfer Client::transfer_unpacked(const void* data, const Shape& shape, const Device& device,
                                   HostBufferSemantics semantics,
                                   std::shared_ptr<const void> keep_alive) const {
  const PJRT_Api* api = handle_->api();
  TTPU_PJRT_ARGS(PJRT_Client_BufferFromHostBuffer_Args, args);
  args.client = handle_->get();
  args.data = data;
  args.type = to_buffer_type(shape.dtype);
  args.dims = shape.dims.data();
  args.num_dims = shape.dims.size();
  args.host_buffer_semantics = to_c(semantics);
  args.device = device.get();
  check(api, api->PJRT_Client_BufferFromHostBuffer(&args), "transfer");

  Transfer result{Buffer(handle_, args.buffer), Event(api, args.done_with_host_buffer), false};
  if (keep_alive) {
    // The callback owns the memory until the plugin is done with it.
    result.host_done.on_ready(
        [held = std::move(keep_alive)](const Error*) mutable { held.reset(); });
  }
  const bool may_alias = semantics == HostBufferSemantics::kZeroCopy ||
                         semantics == HostBufferSemantics::kMutableZeroCopy;
  if (may_alias && handle_->shares_host_memory()) {
    result.zero_copy = result.buffer.unsafe_pointer() == reinterpret_cast<uintptr_t>(data);
  }
  return result;
}

Buffer Client::to_device(const void* data, const Shape& shape) const {
  return transfer(data, shape, HostBufferSemantics::kCopy).buffer;
}

Buffer Client::to_device(const void* data, const Shape& shape, const Device& device) const {
  return transfer(data, shape, device, HostBufferSemantics::kCopy, nullptr).buffer;
}

Buffer Client::zeros(const Shape& shape, const Device& device) const {
  const auto bytes = static_cast<size_t>(std::max<int64_t>(shape.byte_size(), 1));
  void* pages = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED) {
    fail(Code::kResourceExhausted, "[client] no memory for {}: {} bytes", shape.to_string(), bytes);
  }
  const std::shared_ptr<void> memory(pages, [bytes](void* p) { munmap(p, bytes); });
  return transfer(pages, shape, device, HostBufferSemantics::kMutableZeroCopy, memory).buffer;
}

}  // namespace ttpu::pjrt
