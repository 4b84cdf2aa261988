#include "ttpu/kernels/linear/cpu/handlers.h"

#include <array>

#include "ttpu/base/error.h"
#include "ttpu/kernels/cpu/ffi_call.h"
#include "ttpu/kernels/linear/cpu/kernel.h"

namespace ttpu::kernels {
namespace {

DType dtype_of(const XLA_FFI_Buffer& buffer) {
  switch (buffer.dtype) {
    case XLA_FFI_DataType_BF16:
      return DType::kBF16;
    case XLA_FFI_DataType_F16:
      return DType::kF16;
    case XLA_FFI_DataType_F32:
      return DType::kF32;
    case XLA_FFI_DataType_S8:
      return DType::kS8;
    case XLA_FFI_DataType_U8:
      return DType::kU8;
    default:
      fail(Code::kInvalidArgument, "[linear] a buffer has XLA type {}",
           static_cast<int>(buffer.dtype));
  }
}

int64_t last_dim(const XLA_FFI_Buffer& buffer) {
  return buffer.rank == 0 ? 1 : buffer.dims[buffer.rank - 1];
}

int64_t leading(const XLA_FFI_Buffer& buffer) {
  int64_t rows = 1;
  for (int64_t i = 0; i + 1 < buffer.rank; ++i) rows *= buffer.dims[i];
  return rows;
}

// Reads one product's operands, from `next` on.
cpu::Product read_product(const FfiCall& call, int64_t flags, int64_t in, int64_t& next) {
  const XLA_FFI_Buffer& w = call.arg(next++);
  require(w.rank >= 2, "[linear] a weight has {} dimensions", w.rank);
  cpu::Product product{.weight = {.encoding = static_cast<Encoding>(flags & 0xff),
                                  .dtype = dtype_of(w),
                                  .data = w.data,
                                  .out = w.dims[w.rank - 2],
                                  .in = in}};
  if ((flags & kHasScales) != 0) {
    product.weight.row_scales = data_of<const float>(call.arg(next++));
  }
  if ((flags & kHasBias) != 0) {
    const XLA_FFI_Buffer& bias = call.arg(next++);
    product.bias = bias.data;
    product.bias_dtype = dtype_of(bias);
  }
  const bool dense = product.weight.encoding == Encoding::kDense;
  require(last_dim(w) == (dense ? in : cpu::row_bytes(product.weight)),
          "[linear] a weight's rows have {} {}, activations have {}", last_dim(w),
          dense ? "elements" : "bytes", in);
  return product;
}

void linear_kernel(FfiCall& call) {
  const XLA_FFI_Buffer& x = call.arg(0);
  const std::span<const int64_t> flags = call.attr_i64s("products");
  const auto gate = static_cast<cpu::Activation>(call.attr_i64("gate"));
  require(flags.size() <= kMaxProducts, "[linear] {} weights in one call, at most {}", flags.size(),
          kMaxProducts);
  std::array<cpu::Product, kMaxProducts> products;
  int64_t next = 1;
  for (size_t i = 0; i < flags.size(); ++i) {
    products[i] = read_product(call, flags[i], last_dim(x), next);
    if (gate == cpu::Activation::kNone || i == 0) {
      products[i].y = call.result(static_cast<int64_t>(i)).data;
    }
  }
  cpu::linear({.x = x.data,
               .x_dtype = dtype_of(x),
               .y_dtype = dtype_of(call.result(0)),
               .rows = leading(x),
               .products = {products.data(), flags.size()},
               .gate = gate},
              call.pool());
}

void expert_linear_kernel(FfiCall& call) {
  const XLA_FFI_Buffer& x = call.arg(0);
  const XLA_FFI_Buffer& ids = call.arg(1);
  int64_t next = 2;
  const int64_t flags = call.attr_i64s("products")[0];
  const cpu::Product product = read_product(call, flags, last_dim(x), next);
  cpu::expert_linear({.x = x.data,
                      .x_dtype = dtype_of(x),
                      .y_dtype = dtype_of(call.result(0)),
                      .rows = leading(x),
                      .expert_ids = data_of<const int32_t>(ids),
                      .experts = call.arg(2).dims[0],
                      .first = product.weight,
                      .bias = product.bias,
                      .bias_dtype = product.bias_dtype,
                      .y = call.result(0).data},
                     call.pool());
}

}  // namespace

std::span<const CpuHandler> linear_cpu_handlers() {
  static constexpr CpuHandler kHandlers[] = {
      {kLinearTarget, ffi_handler<linear_kernel>},
      {kExpertLinearTarget, ffi_handler<expert_linear_kernel>},
  };
  return kHandlers;
}

}  // namespace ttpu::kernels
