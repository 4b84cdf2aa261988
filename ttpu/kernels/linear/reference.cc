#include "ttpu/kernels/linear/reference.h"

#include "ttpu/ir/ir.h"
#include "ttpu/kernels/linear/expert_blocks.h"
#include "ttpu/kernels/linear/product.h"

namespace ttpu::kernels::reference {
namespace {

using ir::Value;

Value linear_f32(const Target& target, const Rows& x, const WeightOperand& weight,
                 std::optional<Value> bias) {
  const Value y = weight_product(target, x, weight);
  return bias ? y + ir::convert(*bias, DType::kF32) : y;
}

// The rows' own weights, gathered: [rows, out, in].
Value experts_by_gather(const Target& target, Value x, Value ids, const WeightOperand& stacked) {
  WeightOperand own = stacked;
  own.value = ir::take(stacked.value, ids, 0);
  if (stacked.scales) own.scales = ir::take(stacked.scales, ids, 0);
  if (stacked.zero_points) own.zero_points = ir::take(stacked.zero_points, ids, 0);
  own.dims[0] = ids.dim(0);
  return weight_product(target, x, own, 1);
}

// Every expert for every row; all but the row's own are dropped.
Value experts_by_mask(const Target& target, Value x, Value ids, const WeightOperand& stacked) {
  const Value all = weight_product(target, x, stacked);  // [rows, experts, out]
  const Value own = ir::broadcast_in_dim(one_hot(ids, stacked.dims[0]), all.dims(), {0, 1});
  return ir::reduce_sum(ir::select(own, all, ir::full(x.function(), all.shape(), 0)), {1});
}

// Gathering reads a weight for each row, masking multiplies every row with every weight, blocks
// take turns. Each is the cheapest for more rows than the one before.
Value own_experts(const Target& target, Value x, Value ids, const WeightOperand& stacked,
                  DType dtype) {
  if (x.dim(0) <= stacked.dims[0]) return experts_by_gather(target, x, ids, stacked);
  if (x.dim(0) <= 4 * kExpertBlock) return experts_by_mask(target, x, ids, stacked);
  return experts_by_blocks(target, x, ids, stacked, dtype);
}

}  // namespace

Value linear(const Target& target, const Rows& x, const WeightOperand& weight,
             std::optional<Value> bias, DType result) {
  return ir::convert(linear_f32(target, x, weight, bias), result);
}

Value gated_linear(const Target& target, const Rows& x, const WeightOperand& gate,
                   const WeightOperand& up, Activation activation, std::optional<Value> gate_bias,
                   std::optional<Value> up_bias) {
  const auto projected = [&](const WeightOperand& weight, std::optional<Value> bias) {
    const bool plain = x.dtype == DType::kBF16 && compute_dtype(x.values, weight) == x.dtype;
    if (!plain || weight.scales || bias) return linear_f32(target, x, weight, bias);
    // Rounded by the product itself, as transformers does: half the bytes for the next operator.
    return product(x.values, dense(weight, x.dtype), 0, x.dtype);
  };
  const Value activated = activate(activation, projected(gate, gate_bias));
  const Value factor = ir::convert(projected(up, up_bias), activated.dtype());
  return ir::convert(activated * factor, x.dtype);
}

Value expert_linear(const Target& target, Value x, Value expert_ids, const WeightOperand& stacked,
                    std::optional<Value> bias) {
  const int64_t experts = stacked.dims[0];
  // Where nothing is added, rounding can come first, which halves what the loop writes.
  Value y = own_experts(target, x, expert_ids, stacked, bias ? DType::kF32 : x.dtype());
  if (bias) y = y + ir::convert(ir::take(*bias, expert_ids, 0), DType::kF32);
  const Value known = ir::reduce_or(one_hot(expert_ids, experts), {1});
  const Value kept = ir::broadcast_in_dim(known, y.dims(), {0});
  return ir::convert(ir::select(kept, y, ir::full(x.function(), y.shape(), 0)), x.dtype());
}

}  // namespace ttpu::kernels::reference
