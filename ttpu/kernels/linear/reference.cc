#include "ttpu/kernels/linear/reference.h"

#include <cmath>

#include "ttpu/ir/ir.h"

namespace ttpu::kernels::reference {
namespace {

using ir::Value;

// What the product is computed in: see linear.h.
DType compute_dtype(Value x, const WeightOperand& weight) {
  const bool narrow_weight =
      weight.encoding != Encoding::kDense || weight.scales || weight.value.dtype() == DType::kBF16;
  return x.dtype() == DType::kBF16 && narrow_weight ? DType::kBF16 : DType::kF32;
}

// x's last dimension with w's last; f32, of 8-bit integers i32. Batching: leading dimensions that
// both have.
Value product(Value x, Value w, int64_t batching = 0) {
  ir::DotDimensionNumbers dims;
  for (int64_t i = 0; i < batching; ++i) {
    dims.lhs_batching.push_back(i);
    dims.rhs_batching.push_back(i);
  }
  dims.lhs_contracting = {x.rank() - 1};
  dims.rhs_contracting = {w.rank() - 1};
  const ir::Precision precision =
      x.dtype() == DType::kF32 ? ir::Precision::kHighest : ir::Precision::kDefault;
  return ir::dot_general(x, w, dims, is_float(x.dtype()) ? DType::kF32 : DType::kS32, precision);
}

struct Quantized {
  Value values;
  Value scales;  // f32, dims of x without the last
};

// Rows of x with their largest number at the largest value of `dtype`.
Quantized quantize(Value x, DType dtype) {
  const double largest = dtype == DType::kS8 ? 127 : 448;
  const Value wide = ir::convert(x, DType::kF32);
  const Value most = ir::reduce_max(ir::abs(wide), {-1}, true);
  // Rows of zeros must not be divided by zero.
  const Value scales =
      ir::maximum(most * (1 / largest), ir::full(x.function(), most.shape(), 1e-30));
  const Value limit = ir::full(x.function(), wide.shape(), largest);
  const Value scaled = ir::clamp(-limit, wide / scales, limit);
  const Value values = dtype == DType::kS8 ? ir::round_nearest_even(scaled) : scaled;
  return {ir::convert(values, dtype), ir::squeeze(scales, scales.rank() - 1)};
}

// y [.., out] times scales, of its last dimensions.
Value scaled_columns(Value y, Value scales) {
  Dims last;
  for (int64_t i = y.rank() - scales.rank(); i < y.rank(); ++i) last.push_back(i);
  return y * ir::broadcast_in_dim(scales, y.dims(), last);
}

Value scaled_rows(Value y, Value scales) {
  Dims first;
  for (int64_t i = 0; i < scales.rank(); ++i) first.push_back(i);
  return y * ir::broadcast_in_dim(scales, y.dims(), first);
}

// x with the weight, f32, in the form that is best for the weight's.
Value weight_product(Value x, const WeightOperand& weight, int64_t batching = 0) {
  const DType dtype = compute_dtype(x, weight);
  const bool row_scales = weight.scales && weight.scales.rank() + 1 == weight.value.rank();
  if (!row_scales) return product(ir::convert(x, dtype), dense(weight, dtype), batching);
  if (!weight.quantize_activations) {
    const Value y = product(ir::convert(x, dtype), ir::convert(weight.value, dtype), batching);
    return scaled_columns(y, weight.scales);
  }
  const Quantized rows = quantize(x, weight.value.dtype());
  const Value y = product(rows.values, weight.value, batching);
  return scaled_rows(scaled_columns(ir::convert(y, DType::kF32), weight.scales), rows.scales);
}

Value linear_f32(Value x, const WeightOperand& weight, std::optional<Value> bias) {
  const Value y = weight_product(x, weight);
  return bias ? y + ir::convert(*bias, DType::kF32) : y;
}

// [rows, experts] i1: the expert of each row.
Value one_hot(Value ids, int64_t experts) {
  const Dims dims = {ids.dim(0), experts};
  const Value numbers = ir::iota(ids.function(), Shape(ids.dtype(), dims), 1);
  return ir::compare(ir::broadcast_in_dim(ids, dims, {0}), numbers, ir::ComparisonDirection::kEq);
}

// The rows' own weights, gathered: [rows, out, in].
Value experts_by_gather(Value x, Value ids, const WeightOperand& stacked) {
  WeightOperand own = stacked;
  own.value = ir::take(stacked.value, ids, 0);
  if (stacked.scales) own.scales = ir::take(stacked.scales, ids, 0);
  if (stacked.zero_points) own.zero_points = ir::take(stacked.zero_points, ids, 0);
  own.dims[0] = ids.dim(0);
  return weight_product(x, own, 1);
}

// Every expert for every row; all but the row's own are dropped.
Value experts_by_mask(Value x, Value ids, const WeightOperand& stacked) {
  const Value all = weight_product(x, stacked);  // [rows, experts, out]
  const Value own = ir::broadcast_in_dim(one_hot(ids, stacked.dims[0]), all.dims(), {0, 1});
  return ir::reduce_sum(ir::select(own, all, ir::full(x.function(), all.shape(), 0)), {1});
}

}  // namespace

Value linear(Value x, const WeightOperand& weight, std::optional<Value> bias, DType result) {
  return ir::convert(linear_f32(x, weight, bias), result);
}

Value gated_linear(Value x, const WeightOperand& gate, const WeightOperand& up,
                   Activation activation, std::optional<Value> gate_bias,
                   std::optional<Value> up_bias) {
  const Value activated = activate(activation, linear_f32(x, gate, gate_bias));
  return ir::convert(activated * linear_f32(x, up, up_bias), x.dtype());
}

Value expert_linear(Value x, Value expert_ids, const WeightOperand& stacked,
                    std::optional<Value> bias) {
  const int64_t experts = stacked.dims[0];
  // Gathering reads a weight for each row; the other way reads all once.
  const bool few = x.dim(0) <= experts;
  Value y =
      few ? experts_by_gather(x, expert_ids, stacked) : experts_by_mask(x, expert_ids, stacked);
  if (bias) y = y + ir::convert(ir::take(*bias, expert_ids, 0), DType::kF32);
  const Value known = ir::reduce_or(one_hot(expert_ids, experts), {1});
  const Value kept = ir::broadcast_in_dim(known, y.dims(), {0});
  return ir::convert(ir::select(kept, y, ir::full(x.function(), y.shape(), 0)), x.dtype());
}

}  // namespace ttpu::kernels::reference
