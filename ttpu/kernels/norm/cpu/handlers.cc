#include "ttpu/kernels/norm/cpu/handlers.h"

#include "ttpu/base/error.h"
#include "ttpu/kernels/cpu/ffi_call.h"
#include "ttpu/kernels/norm/cpu/kernel.h"

namespace ttpu::kernels {
namespace {

DType float_type(const XLA_FFI_Buffer& buffer) {
  if (buffer.dtype == XLA_FFI_DataType_BF16) return DType::kBF16;
  if (buffer.dtype == XLA_FFI_DataType_F32) return DType::kF32;
  fail(Code::kInvalidArgument, "[norm] a buffer has XLA type {}, expected bf16 or f32",
       static_cast<int>(buffer.dtype));
}

void norm_kernel(FfiCall& call) {
  const XLA_FFI_Buffer& x = call.arg(0);
  const XLA_FFI_Buffer& weight = call.arg(1);
  require(x.rank > 0, "[norm] x is a scalar");
  cpu::Norm n;
  n.dtype = float_type(x);
  n.weight_dtype = float_type(weight);
  n.dim = x.dims[x.rank - 1];
  n.rows = 1;
  for (int64_t i = 0; i + 1 < x.rank; ++i) n.rows *= x.dims[i];
  require(weight.rank == 1 && weight.dims[0] == n.dim, "[norm] the weight does not fit x");
  n.x = x.data;
  n.weight = weight.data;
  n.out = call.result(0).data;
  int64_t next = 2;
  if (call.attr_i64("has_bias") != 0) n.bias = call.arg(next++).data;
  if (call.num_results() > 1) {
    n.delta = call.arg(next).data;
    n.sum = call.result(1).data;
  }
  n.layer = call.attr_i64("layer") != 0;
  n.epsilon = call.attr_f32("epsilon");
  n.round_first = call.attr_i64("round_first") != 0;
  n.weight_offset = call.attr_f32("weight_offset");
  cpu::norm(n, call.pool());
}

}  // namespace

std::span<const CpuHandler> norm_cpu_handlers() {
  static constexpr CpuHandler kHandlers[] = {{kNormTarget, ffi_handler<norm_kernel>}};
  return kHandlers;
}

}  // namespace ttpu::kernels
