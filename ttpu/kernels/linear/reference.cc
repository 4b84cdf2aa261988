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

Value experts_by_blocks(const Target& target, Value x, Value ids, const WeightOperand& stacked,
                        const std::optional<Value>& bias) {
  const ExpertBlocks blocks = expert_blocks(ids, stacked.dims[0]);
  const Value sorted = at_places(x, blocks.rows);
  return from_places(linear_of_blocks(target, sorted, blocks.experts, stacked, bias), blocks.rows);
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

// Gathering reads a weight for each row, masking multiplies every row with every weight, blocks
// take turns. Each is the cheapest for more rows than the one before.
Value expert_linear(const Target& target, Value x, Value expert_ids, const WeightOperand& stacked,
                    std::optional<Value> bias) {
  if (takes_blocks(x.dim(0))) return experts_by_blocks(target, x, expert_ids, stacked, bias);
  const bool few = x.dim(0) <= stacked.dims[0];
  Value y = few ? experts_by_gather(target, x, expert_ids, stacked)
                : experts_by_mask(target, x, expert_ids, stacked);
  if (bias) y = y + ir::convert(ir::take(*bias, expert_ids, 0), DType::kF32);
  const Value known = ir::broadcast_in_dim(has_expert(expert_ids, stacked.dims[0]), y.dims(), {0});
  return ir::convert(ir::select(known, y, ir::full(x.function(), y.shape(), 0)), x.dtype());
}

}  // namespace ttpu::kernels::reference
