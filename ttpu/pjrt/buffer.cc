#include "ttpu/pjrt/buffer.h"

#include <span>
#include <utility>

#include "ttpu/pjrt/capi.h"
#include "ttpu/pjrt/client.h"
#include "ttpu/pjrt/nibbles.h"

namespace ttpu::pjrt {
namespace {

// Shape without its memory. The dimensions are the buffer's own.
struct ShapeView {
  DType dtype;
  std::span<const int64_t> dims;
};

ShapeView shape_of(const PJRT_Api* api, PJRT_Buffer* buffer) {
  TTPU_PJRT_ARGS(PJRT_Buffer_ElementType_Args, type);
  type.buffer = buffer;
  check(api, api->PJRT_Buffer_ElementType(&type), "buffer");
  TTPU_PJRT_ARGS(PJRT_Buffer_Dimensions_Args, dims);
  dims.buffer = buffer;
  check(api, api->PJRT_Buffer_Dimensions(&dims), "buffer");
  return {from_buffer_type(type.type), {dims.dims, dims.num_dims}};
}

}  // namespace

Buffer::Buffer(std::shared_ptr<const ClientHandle> client, PJRT_Buffer* buffer)
    : client_(std::move(client)), buffer_(buffer) {}

Buffer::~Buffer() {
  if (buffer_ == nullptr) return;
  TTPU_PJRT_ARGS(PJRT_Buffer_Destroy_Args, args);
  args.buffer = buffer_;
  const PJRT_Api* api = client_->api();
  if (PJRT_Error* error = api->PJRT_Buffer_Destroy(&args); error != nullptr) {
    take_error(api, error, "buffer");
  }
}

Buffer::Buffer(Buffer&& other) noexcept
    : client_(std::move(other.client_)), buffer_(std::exchange(other.buffer_, nullptr)) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(client_, other.client_);
  std::swap(buffer_, other.buffer_);
  return *this;
}

Shape Buffer::shape() const {
  require(buffer_ != nullptr, "[buffer] an empty buffer has no shape; was it moved from?");
  const PJRT_Api* api = client_->api();
  const auto [dtype, dims] = shape_of(api, buffer_);
  return Shape(dtype, Dims(dims.begin(), dims.end()));
}

Device Buffer::device() const {
  require(buffer_ != nullptr, "[buffer] an empty buffer has no device; was it moved from?");
  const PJRT_Api* api = client_->api();
  TTPU_PJRT_ARGS(PJRT_Buffer_Device_Args, args);
  args.buffer = buffer_;
  check(api, api->PJRT_Buffer_Device(&args), "buffer");
  return Device(api, args.device);
}

int64_t Buffer::device_bytes() const {
  require(buffer_ != nullptr, "[buffer] an empty buffer has no size; was it moved from?");
  const PJRT_Api* api = client_->api();
  TTPU_PJRT_ARGS(PJRT_Buffer_OnDeviceSizeInBytes_Args, args);
  args.buffer = buffer_;
  check(api, api->PJRT_Buffer_OnDeviceSizeInBytes(&args), "buffer");
  return static_cast<int64_t>(args.on_device_size_in_bytes);
}

Event Buffer::ready() const {
  if (buffer_ == nullptr) return Event();
  const PJRT_Api* api = client_->api();
  TTPU_PJRT_ARGS(PJRT_Buffer_ReadyEvent_Args, args);
  args.buffer = buffer_;
  check(api, api->PJRT_Buffer_ReadyEvent(&args), "buffer");
  return Event(api, args.event);
}

// Without shape(): a step of an engine comes by here, and must not allocate.
Event Buffer::to_host(void* destination, int64_t bytes) const {
  require(buffer_ != nullptr, "[buffer] an empty buffer cannot be read; was it moved from?");
  const PJRT_Api* api = client_->api();
  const auto [dtype, dims] = shape_of(api, buffer_);
  int64_t elements = 1;
  for (const int64_t dim : dims) elements *= dim;
  const int bits = bit_width(dtype);
  if (bytes != (elements * bits + 7) / 8) {
    fail(Code::kInvalidArgument,
         "[buffer] {} has {} bytes, but the destination was given as {} bytes", shape().to_string(),
         shape().byte_size(), bytes);
  }
  if (deleted()) {
    fail(Code::kFailedPrecondition,
         "[buffer] {} was deleted or donated to a program and can no longer be read; use the "
         "program's result instead",
         shape().to_string());
  }
  RowMajorLayout layout(dims.size());
  // PJRT gives 4-bit elements one to a byte.
  const bool nibbles = bits == 4;
  std::vector<uint8_t> unpacked(nibbles ? static_cast<size_t>(elements) : 0);
  TTPU_PJRT_ARGS(PJRT_Buffer_ToHostBuffer_Args, args);
  args.src = buffer_;
  args.host_layout = layout.get();
  args.dst = nibbles ? unpacked.data() : destination;
  args.dst_size = nibbles ? unpacked.size() : static_cast<size_t>(bytes);
  check(api, api->PJRT_Buffer_ToHostBuffer(&args), "buffer");
  Event done(api, args.event);
  if (!nibbles) return done;
  done.wait();
  pack_nibbles(unpacked, static_cast<uint8_t*>(destination));
  return Event();
}

Buffer Buffer::copy_to(const Device& device) const {
  require(buffer_ != nullptr, "[buffer] an empty buffer cannot be copied; was it moved from?");
  const PJRT_Api* api = client_->api();
  TTPU_PJRT_ARGS(PJRT_Buffer_CopyToDevice_Args, args);
  args.buffer = buffer_;
  args.dst_device = device.get();
  check(api, api->PJRT_Buffer_CopyToDevice(&args), "buffer");
  return Buffer(client_, args.dst_buffer);
}

void Buffer::free() {
  if (buffer_ == nullptr) return;
  const PJRT_Api* api = client_->api();
  TTPU_PJRT_ARGS(PJRT_Buffer_Delete_Args, args);
  args.buffer = buffer_;
  check(api, api->PJRT_Buffer_Delete(&args), "buffer");
}

bool Buffer::deleted() const {
  if (buffer_ == nullptr) return true;
  const PJRT_Api* api = client_->api();
  TTPU_PJRT_ARGS(PJRT_Buffer_IsDeleted_Args, args);
  args.buffer = buffer_;
  check(api, api->PJRT_Buffer_IsDeleted(&args), "buffer");
  return args.is_deleted;
}

uintptr_t Buffer::unsafe_pointer() const {
  require(buffer_ != nullptr, "[buffer] an empty buffer has no address; was it moved from?");
  const PJRT_Api* api = client_->api();
  TTPU_PJRT_ARGS(PJRT_Buffer_UnsafePointer_Args, args);
  args.buffer = buffer_;
  check(api, api->PJRT_Buffer_UnsafePointer(&args), "buffer");
  return args.buffer_pointer;
}

}  // namespace ttpu::pjrt
