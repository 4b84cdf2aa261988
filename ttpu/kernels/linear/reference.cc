#include "ttpu/kernels/linear/reference.h"

#include <cmath>

#include "ttpu/ir/ir.h"

namespace ttpu::kernels::reference {
namespace {

using ir::Value;

// What the product is computed in: see linear.h.
DType compute_dtype(Value x, const WeightOperand& weight) {
  const bool narrow_weight =
      weight.encoding != Encoding::kDense || weight.value.dtype() == DType::kBF16;
  return x.dtype() == DType::kBF16 && narrow_weight ? DType::kBF16 : DType::kF32;
}

// x's last dimension with w's last; f32. Batching: leading dimensions that both have.
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
  return ir::dot_general(x, w, dims, DType::kF32, precision);
}

Value linear_f32(Value x, const WeightOperand& weight, std::optional<Value> bias) {
  const DType dtype = compute_dtype(x, weight);
  const Value y = product(ir::convert(x, dtype), dense(weight, dtype));
  return bias ? y + ir::convert(*bias, DType::kF32) : y;
}

// [rows, experts] i1: the expert of each row.
Value one_hot(Value ids, int64_t experts) {
  const Dims dims = {ids.dim(0), experts};
  const Value numbers = ir::iota(ids.function(), Shape(ids.dtype(), dims), 1);
  return ir::compare(ir::broadcast_in_dim(ids, dims, {0}), numbers, ir::ComparisonDirection::kEq);
}

// The rows' own weights, gathered: [rows, out, in].
Value experts_by_gather(Value x, Value ids, const WeightOperand& stacked, DType dtype) {
  WeightOperand own = stacked;
  own.value = ir::take(stacked.value, ids, 0);
  if (stacked.scales) own.scales = ir::take(stacked.scales, ids, 0);
  own.dims[0] = ids.dim(0);
  return product(x, dense(own, dtype), 1);
}

// Every expert for every row; all but the row's own are dropped.
Value experts_by_mask(Value x, Value ids, const WeightOperand& stacked, DType dtype) {
  const Value all = product(x, dense(stacked, dtype));  // [rows, experts, out]
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
  const DType dtype = compute_dtype(x, stacked);
  const Value wide = ir::convert(x, dtype);
  const int64_t experts = stacked.dims[0];
  // Gathering reads a weight for each row; the other way reads all once.
  const bool few = x.dim(0) <= experts;
  Value y = few ? experts_by_gather(wide, expert_ids, stacked, dtype)
                : experts_by_mask(wide, expert_ids, stacked, dtype);
  if (bias) y = y + ir::convert(ir::take(*bias, expert_ids, 0), DType::kF32);
  const Value known = ir::reduce_or(one_hot(expert_ids, experts), {1});
  const Value kept = ir::broadcast_in_dim(known, y.dims(), {0});
  return ir::convert(ir::select(kept, y, ir::full(x.function(), y.shape(), 0)), x.dtype());
}

}  // namespace ttpu::kernels::reference
