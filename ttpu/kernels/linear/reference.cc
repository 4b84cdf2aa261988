#include "ttpu/kernels/linear/reference.h"

#include "ttpu/ir/ir.h"
#include "ttpu/kernels/linear/product.h"
#include "ttpu/kernels/linear/scales.h"

namespace ttpu::kernels::reference {
namespace {

using ir::Value;

// Rows of one expert that are multiplied at once: as many as the matrix units are wide.
constexpr int64_t kBlock = 128;

Value linear_f32(Platform platform, Value x, const WeightOperand& weight,
                 std::optional<Value> bias) {
  const Value y = weight_product(platform, x, weight);
  return bias ? y + ir::convert(*bias, DType::kF32) : y;
}

// [rows, experts] i1: the expert of each row.
Value one_hot(Value ids, int64_t experts) {
  const Dims dims = {ids.dim(0), experts};
  const Value numbers = ir::iota(ids.function(), Shape(ids.dtype(), dims), 1);
  return ir::compare(ir::broadcast_in_dim(ids, dims, {0}), numbers, ir::ComparisonDirection::kEq);
}

// The rows' own weights, gathered: [rows, out, in].
Value experts_by_gather(Platform platform, Value x, Value ids, const WeightOperand& stacked) {
  WeightOperand own = stacked;
  own.value = ir::take(stacked.value, ids, 0);
  if (stacked.scales) own.scales = ir::take(stacked.scales, ids, 0);
  if (stacked.zero_points) own.zero_points = ir::take(stacked.zero_points, ids, 0);
  own.dims[0] = ids.dim(0);
  return weight_product(platform, x, own, 1);
}

// Every expert for every row; all but the row's own are dropped.
Value experts_by_mask(Platform platform, Value x, Value ids, const WeightOperand& stacked) {
  const Value all = weight_product(platform, x, stacked);  // [rows, experts, out]
  const Value own = ir::broadcast_in_dim(one_hot(ids, stacked.dims[0]), all.dims(), {0, 1});
  return ir::reduce_sum(ir::select(own, all, ir::full(x.function(), all.shape(), 0)), {1});
}

// [n]: for each entry the sum of those before it.
Value sums_before(Value x) {
  const Dims dims = {x.dim(0), x.dim(0)};
  const auto numbers = [&](int64_t axis) {
    return ir::iota(x.function(), Shape(DType::kS32, dims), axis);
  };
  const Value before = ir::compare(numbers(1), numbers(0), ir::ComparisonDirection::kLt);
  const Value all = ir::broadcast_in_dim(x, dims, {1});
  return ir::reduce_sum(ir::select(before, all, ir::full(x.function(), all.shape(), 0)), {1});
}

// Rows sorted by their experts, each expert's from the beginning of a block of kBlock rows on.
struct Blocks {
  Value experts;  // [blocks] i32: whose rows a block has
  Value sources;  // [blocks * kBlock] i32: the row at each place; any where there is none
  Value places;   // [rows] i32: where each row is; any where its id is not an expert's
};

Blocks blocks_of(Value ids, int64_t experts, int64_t blocks) {
  using enum ir::ComparisonDirection;
  ir::Function& function = ids.function();
  const auto full = [&](const Dims& dims, int64_t value) {
    return ir::full(function, Shape(DType::kS32, dims), static_cast<double>(value));
  };
  const auto numbers = [&](int64_t count) {
    return ir::iota(function, Shape(DType::kS32, {count}), 0);
  };
  const auto sorted_by = [](Value keys, Value values) {
    return ir::sort({keys, values}, 0, true,
                    [](const ir::Values& v) { return ir::compare(v[0], v[1], kLt); });
  };
  const int64_t rows = ids.dim(0);
  const Value known = ir::and_(ir::compare(ids, full({rows}, 0), kGe),
                               ir::compare(ids, full({rows}, experts), kLt));
  const ir::Values sorted = sorted_by(ir::select(known, ids, full({rows}, experts)), numbers(rows));
  const Value order = sorted[1];
  const Value counts = ir::reduce_sum(ir::convert(one_hot(ids, experts), DType::kS32), {0});
  const Value block_counts =
      ir::divide(counts + static_cast<double>(kBlock - 1), full({experts}, kBlock));
  const Value first_blocks = sums_before(block_counts);
  const Value ends = first_blocks + block_counts;
  // A place minus this is a place among the sorted rows.
  const Value shifts = first_blocks * static_cast<double>(kBlock) - sums_before(counts);

  const Dims both = {blocks, experts};
  const Value ended = ir::compare(ir::broadcast_in_dim(ends, both, {1}),
                                  ir::iota(function, Shape(DType::kS32, both), 0), kLe);
  Blocks result;
  result.experts = ir::minimum(ir::reduce_sum(ir::convert(ended, DType::kS32), {1}),
                               full({blocks}, experts - 1));
  const Value shift =
      ir::reshape(ir::broadcast_in_dim(ir::take(shifts, result.experts, 0), {blocks, kBlock}, {0}),
                  {blocks * kBlock});
  const Value position = ir::clamp(full({blocks * kBlock}, 0), numbers(blocks * kBlock) - shift,
                                   full({blocks * kBlock}, rows - 1));
  result.sources = ir::take(order, position, 0);
  const Value expert = ir::minimum(sorted[0], full({rows}, experts - 1));
  result.places = sorted_by(order, numbers(rows) + ir::take(shifts, expert, 0))[1];
  return result;
}

// One of the stacked weights; its values are taken in the form in which products read them.
WeightOperand at_expert(const WeightOperand& stacked, Value expert) {
  const auto one = [&](Value all) {
    ir::Values starts(static_cast<size_t>(all.rank()), ir::scalar_like(expert, 0));
    starts[0] = expert;
    Dims dims = all.dims();
    dims[0] = 1;
    const Value slice = ir::dynamic_slice(all, starts, dims);
    return ir::reshape(slice, Dims(dims.begin() + 1, dims.end()));
  };
  WeightOperand own = stacked;
  const bool blocks = rows_in_block(stacked) > 1;
  own.value = one(blocks ? in_row_blocks(stacked) : stacked.value);
  if (stacked.scales) own.scales = one(stacked.scales);
  if (stacked.zero_points) own.zero_points = one(stacked.zero_points);
  own.dims.erase(own.dims.begin());
  if (blocks) own.value = ir::reshape(own.value, own.dims);
  return own;
}

// Each row by its own expert, a block of one expert's rows in each turn of a loop. There are at
// most as many blocks as full ones and one more for each expert, and so many turns the loop has.
Value experts_by_blocks(Platform platform, Value x, Value ids, const WeightOperand& stacked,
                        DType dtype) {
  const int64_t blocks = x.dim(0) / kBlock + stacked.dims[0];
  const Blocks layout = blocks_of(ids, stacked.dims[0], blocks);
  const Value sorted = ir::take(x, layout.sources, 0);
  ir::Function& function = x.function();
  const ir::Values start = {
      ir::scalar(function, DType::kS32, 0),
      ir::full(function, Shape(dtype, {blocks * kBlock, stacked.dims[1]}), 0)};
  const auto more = [&](const ir::Values& v) {
    return ir::compare(v[0], ir::scalar_like(v[0], static_cast<double>(blocks)),
                       ir::ComparisonDirection::kLt);
  };
  const auto turn = [&](const ir::Values& v) -> ir::Values {
    const Value zero = ir::scalar_like(v[0], 0);
    const Value first = v[0] * static_cast<double>(kBlock);
    const Value rows = ir::dynamic_slice(sorted, {first, zero}, {kBlock, x.dim(1)});
    const Value expert = ir::reshape(ir::dynamic_slice(layout.experts, {v[0]}, {1}), {});
    const Value y = weight_product(platform, rows, at_expert(stacked, expert));
    return {v[0] + 1.0, ir::dynamic_update_slice(v[1], ir::convert(y, dtype), {first, zero})};
  };
  return ir::take(ir::while_loop(start, more, turn)[1], layout.places, 0);
}

// Gathering reads a weight for each row, masking multiplies every row with every weight, blocks
// take turns. Each is the cheapest for more rows than the one before.
Value own_experts(Platform platform, Value x, Value ids, const WeightOperand& stacked,
                  DType dtype) {
  if (x.dim(0) <= stacked.dims[0]) return experts_by_gather(platform, x, ids, stacked);
  if (x.dim(0) <= 4 * kBlock) return experts_by_mask(platform, x, ids, stacked);
  return experts_by_blocks(platform, x, ids, stacked, dtype);
}

}  // namespace

Value linear(Platform platform, Value x, const WeightOperand& weight, std::optional<Value> bias,
             DType result) {
  return ir::convert(linear_f32(platform, x, weight, bias), result);
}

Value gated_linear(Platform platform, Value x, const WeightOperand& gate, const WeightOperand& up,
                   Activation activation, std::optional<Value> gate_bias,
                   std::optional<Value> up_bias) {
  const auto projected = [platform, x](const WeightOperand& weight, std::optional<Value> bias) {
    const bool plain = x.dtype() == DType::kBF16 && compute_dtype(x, weight) == x.dtype();
    if (!plain || weight.scales || bias) return linear_f32(platform, x, weight, bias);
    // Rounded by the product itself, as transformers does: half the bytes for the next operator.
    return product(x, dense(weight, x.dtype()), 0, x.dtype());
  };
  const Value activated = activate(activation, projected(gate, gate_bias));
  const Value factor = ir::convert(projected(up, up_bias), activated.dtype());
  return ir::convert(activated * factor, x.dtype());
}

Value expert_linear(Platform platform, Value x, Value expert_ids, const WeightOperand& stacked,
                    std::optional<Value> bias) {
  const int64_t experts = stacked.dims[0];
  // Where nothing is added, rounding can come first, which halves what the loop writes.
  Value y = own_experts(platform, x, expert_ids, stacked, bias ? DType::kF32 : x.dtype());
  if (bias) y = y + ir::convert(ir::take(*bias, expert_ids, 0), DType::kF32);
  const Value known = ir::reduce_or(one_hot(expert_ids, experts), {1});
  const Value kept = ir::broadcast_in_dim(known, y.dims(), {0});
  return ir::convert(ir::select(kept, y, ir::full(x.function(), y.shape(), 0)), x.dtype());
}

}  // namespace ttpu::kernels::reference
