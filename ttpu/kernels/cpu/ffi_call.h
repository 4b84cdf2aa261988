// The CPU kernels' side of XLA's FFI: a call frame read without the templates of xla/ffi/api/ffi.h.
// Only fields that every version of the interface since 0.0 has are touched, so one handler serves
// old and new plugins. Source of the layout: xla/ffi/api/c_api.h.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "ttpu/kernels/cpu/handler.h"
#include "ttpu/kernels/cpu/parallel.h"
#include "xla/ffi/api/c_api.h"

namespace ttpu::kernels {

// The plugin's intra-op pool as seen from one call. Valid during the call.
class FfiPool final : public TaskPool {
 public:
  explicit FfiPool(const XLA_FFI_CallFrame& frame);
  int num_threads() const override { return num_threads_; }
  bool schedule(void (*task)(void*), void* data) override;

 private:
  const XLA_FFI_Api* api_;
  XLA_FFI_InvokeContext* context_;
  int num_threads_ = 0;
};

// Arguments, results and attributes of one call. Accessors throw ttpu::Error (kInvalidArgument) for
// what is absent or has another type, and the handler turns that into an XLA error.
class FfiCall {
 public:
  explicit FfiCall(const XLA_FFI_CallFrame& frame) : frame_(frame), pool_(frame) {}

  int64_t num_args() const { return frame_.args.size; }
  int64_t num_results() const { return frame_.rets.size; }
  const XLA_FFI_Buffer& arg(int64_t index) const;
  const XLA_FFI_Buffer& result(int64_t index) const;
  // Scalar attributes of the backend_config dictionary: `name = 3 : i64`, `name = 1.0 : f32`.
  int64_t attr_i64(std::string_view name) const;
  float attr_f32(std::string_view name) const;
  bool has_attr(std::string_view name) const;
  // A dense array attribute: `name = array<i64: 1, 2>`.
  std::span<const int64_t> attr_i64s(std::string_view name) const;

  TaskPool* pool() { return &pool_; }

 private:
  const void* find(std::string_view name, XLA_FFI_AttrType type) const;

  const XLA_FFI_CallFrame& frame_;
  FfiPool pool_;
};

inline std::span<const int64_t> dims_of(const XLA_FFI_Buffer& buffer) {
  return {buffer.dims, static_cast<size_t>(buffer.rank)};
}
template <typename T>
T* data_of(const XLA_FFI_Buffer& buffer) {
  return static_cast<T*>(buffer.data);
}

namespace internal {
// Answers the metadata query, else runs `body`; an exception becomes an XLA error.
XLA_FFI_Error* handle(XLA_FFI_CallFrame* frame, void (*body)(FfiCall&)) noexcept;
}  // namespace internal

// The C function to register for a kernel: ffi_handler<my_kernel> with void my_kernel(FfiCall&).
template <void (*kBody)(FfiCall&)>
XLA_FFI_Error* ffi_handler(XLA_FFI_CallFrame* frame) {
  return internal::handle(frame, kBody);
}

}  // namespace ttpu::kernels
