#include "ttpu/kernels/cpu/ffi_call.h"

#include <algorithm>
#include <cstring>
#include <exception>

#include "ttpu/base/error.h"

namespace ttpu::kernels {
namespace {

// The plugin may be older than our header: a function exists only if its table reaches that far.
bool has_thread_pool(const XLA_FFI_Api& api) {
  return api.struct_size >= XLA_FFI_STRUCT_SIZE(XLA_FFI_Api, XLA_FFI_ThreadPool_NumThreads) &&
         api.XLA_FFI_ThreadPool_Schedule != nullptr && api.XLA_FFI_ThreadPool_NumThreads != nullptr;
}

void destroy(const XLA_FFI_Api& api, XLA_FFI_Error* error) {
  XLA_FFI_Error_Destroy_Args args{XLA_FFI_Error_Destroy_Args_STRUCT_SIZE, nullptr, error};
  api.XLA_FFI_Error_Destroy(&args);
}

XLA_FFI_Error* make_error(const XLA_FFI_Api& api, XLA_FFI_Error_Code code, const char* message) {
  XLA_FFI_Error_Create_Args args{XLA_FFI_Error_Create_Args_STRUCT_SIZE, nullptr, message, code};
  return api.XLA_FFI_Error_Create(&args);
}

// The version we claim is the plugin's own when that is older: the fields used here are in both.
void fill_metadata(const XLA_FFI_Api& api, XLA_FFI_Metadata& metadata) {
  metadata.api_version.major_version = XLA_FFI_API_MAJOR;
  metadata.api_version.minor_version =
      std::min<int>(XLA_FFI_API_MINOR, api.api_version.minor_version);
  metadata.traits = 0;
  if (metadata.struct_size >= XLA_FFI_STRUCT_SIZE(XLA_FFI_Metadata, state_type_id)) {
    metadata.state_type_id = XLA_FFI_UNKNOWN_TYPE_ID;
  }
}

}  // namespace

FfiPool::FfiPool(const XLA_FFI_CallFrame& frame) : api_(frame.api), context_(frame.ctx) {
  if (!has_thread_pool(*api_)) return;
  int64_t count = 0;
  XLA_FFI_ThreadPool_NumThreads_Args args{XLA_FFI_ThreadPool_NumThreads_Args_STRUCT_SIZE, nullptr,
                                          context_, &count};
  if (XLA_FFI_Error* error = api_->XLA_FFI_ThreadPool_NumThreads(&args)) {
    destroy(*api_, error);
    return;
  }
  num_threads_ = static_cast<int>(count);
}

bool FfiPool::schedule(void (*task)(void*), void* data) {
  XLA_FFI_ThreadPool_Schedule_Args args{XLA_FFI_ThreadPool_Schedule_Args_STRUCT_SIZE, nullptr,
                                        context_, task, data};
  XLA_FFI_Error* error = api_->XLA_FFI_ThreadPool_Schedule(&args);
  if (error == nullptr) return true;
  destroy(*api_, error);
  return false;
}

const XLA_FFI_Buffer& FfiCall::arg(int64_t index) const {
  require(index < frame_.args.size && frame_.args.types[index] == XLA_FFI_ArgType_BUFFER,
          "[ffi] argument {} of {} is missing or no buffer", index, frame_.args.size);
  return *static_cast<const XLA_FFI_Buffer*>(frame_.args.args[index]);
}

const XLA_FFI_Buffer& FfiCall::result(int64_t index) const {
  require(index < frame_.rets.size && frame_.rets.types[index] == XLA_FFI_RetType_BUFFER,
          "[ffi] result {} of {} is missing or no buffer", index, frame_.rets.size);
  return *static_cast<const XLA_FFI_Buffer*>(frame_.rets.rets[index]);
}

const void* FfiCall::find(std::string_view name, XLA_FFI_AttrType type) const {
  for (int64_t i = 0; i < frame_.attrs.size; ++i) {
    const XLA_FFI_ByteSpan& key = *frame_.attrs.names[i];
    if (std::string_view(key.ptr, key.len) != name) continue;
    return frame_.attrs.types[i] == type ? frame_.attrs.attrs[i] : nullptr;
  }
  return nullptr;
}

bool FfiCall::has_attr(std::string_view name) const {
  for (int64_t i = 0; i < frame_.attrs.size; ++i) {
    const XLA_FFI_ByteSpan& key = *frame_.attrs.names[i];
    if (std::string_view(key.ptr, key.len) == name) return true;
  }
  return false;
}

int64_t FfiCall::attr_i64(std::string_view name) const {
  const auto* scalar = static_cast<const XLA_FFI_Scalar*>(find(name, XLA_FFI_AttrType_SCALAR));
  require(scalar != nullptr && scalar->dtype == XLA_FFI_DataType_S64,
          "[ffi] attribute {} is missing or no i64 scalar", name);
  int64_t value = 0;
  std::memcpy(&value, scalar->value, sizeof value);
  return value;
}

float FfiCall::attr_f32(std::string_view name) const {
  const auto* scalar = static_cast<const XLA_FFI_Scalar*>(find(name, XLA_FFI_AttrType_SCALAR));
  require(scalar != nullptr && scalar->dtype == XLA_FFI_DataType_F32,
          "[ffi] attribute {} is missing or no f32 scalar", name);
  float value = 0;
  std::memcpy(&value, scalar->value, sizeof value);
  return value;
}

std::span<const int64_t> FfiCall::attr_i64s(std::string_view name) const {
  const auto* array = static_cast<const XLA_FFI_Array*>(find(name, XLA_FFI_AttrType_ARRAY));
  require(array != nullptr && array->dtype == XLA_FFI_DataType_S64,
          "[ffi] attribute {} is missing or no array of i64", name);
  return {static_cast<const int64_t*>(array->data), array->size};
}

XLA_FFI_Error* internal::handle(XLA_FFI_CallFrame* frame, void (*body)(FfiCall&)) noexcept {
  const XLA_FFI_Api& api = *frame->api;
  if (frame->extension_start != nullptr &&
      frame->extension_start->type == XLA_FFI_Extension_Metadata) {
    auto* extension = reinterpret_cast<XLA_FFI_Metadata_Extension*>(frame->extension_start);
    fill_metadata(api, *extension->metadata);
    return nullptr;
  }
  if (frame->stage != XLA_FFI_ExecutionStage_EXECUTE) return nullptr;
  try {
    FfiCall call(*frame);
    body(call);
    return nullptr;
  } catch (const Error& error) {
    return make_error(api, static_cast<XLA_FFI_Error_Code>(error.code()), error.what());
  } catch (const std::exception& error) {
    return make_error(api, XLA_FFI_Error_Code_INTERNAL, error.what());
  }
}

}  // namespace ttpu::kernels
