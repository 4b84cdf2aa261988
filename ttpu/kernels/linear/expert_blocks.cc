#include "ttpu/kernels/linear/expert_blocks.h"

#include "ttpu/ir/ir.h"
#include "ttpu/ir/module.h"
#include "ttpu/kernels/linear/product.h"
#include "ttpu/kernels/linear/scales.h"

namespace ttpu::kernels::reference {

using ir::Value;

Value one_hot(Value ids, int64_t experts) {
  const Dims dims = {ids.dim(0), experts};
  const Value numbers = ir::iota(ids.function(), Shape(ids.dtype(), dims), 1);
  return ir::compare(ir::broadcast_in_dim(ids, dims, {0}), numbers, ir::ComparisonDirection::kEq);
}

namespace {

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

// Rows sorted by their experts, each expert's from the beginning of a block of kExpertBlock rows
// on.
struct Blocks {
  Value experts;  // [blocks] i32: whose rows a block has
  Value sources;  // [blocks * kExpertBlock] i32: the row at each place; any where there is none
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
      ir::divide(counts + static_cast<double>(kExpertBlock - 1), full({experts}, kExpertBlock));
  const Value first_blocks = sums_before(block_counts);
  const Value ends = first_blocks + block_counts;
  // A place minus this is a place among the sorted rows.
  const Value shifts = first_blocks * static_cast<double>(kExpertBlock) - sums_before(counts);

  const Dims both = {blocks, experts};
  const Value ended = ir::compare(ir::broadcast_in_dim(ends, both, {1}),
                                  ir::iota(function, Shape(DType::kS32, both), 0), kLe);
  Blocks result;
  result.experts = ir::minimum(ir::reduce_sum(ir::convert(ended, DType::kS32), {1}),
                               full({blocks}, experts - 1));
  const Value shift = ir::reshape(
      ir::broadcast_in_dim(ir::take(shifts, result.experts, 0), {blocks, kExpertBlock}, {0}),
      {blocks * kExpertBlock});
  const Value position =
      ir::clamp(full({blocks * kExpertBlock}, 0), numbers(blocks * kExpertBlock) - shift,
                full({blocks * kExpertBlock}, rows - 1));
  result.sources = ir::take(order, position, 0);
  const Value expert = ir::minimum(sorted[0], full({rows}, experts - 1));
  result.places = sorted_by(order, numbers(rows) + ir::take(shifts, expert, 0))[1];
  return result;
}

// One of the stacked weights; its values are taken in the form in which products read them.
WeightOperand at_expert(const WeightOperand& stacked, Value expert) {
  const auto one = [&](Value all) { return ir::dynamic_index(all, expert); };
  WeightOperand own = stacked;
  const bool blocks = rows_in_block(stacked) > 1;
  own.value = one(blocks ? in_row_blocks(stacked) : stacked.value);
  if (stacked.scales) own.scales = one(stacked.scales);
  if (stacked.zero_points) own.zero_points = one(stacked.zero_points);
  own.dims.erase(own.dims.begin());
  if (blocks) own.value = ir::reshape(own.value, own.dims);
  return own;
}

// At most as many as full ones and one more for each expert.
int64_t count_blocks(Value x, int64_t experts) { return x.dim(0) / kExpertBlock + experts; }

Value rows_of_block(Value sorted, Value first) {
  return ir::dynamic_slice(sorted, {first, ir::scalar_like(first, 0)},
                           {kExpertBlock, sorted.dim(1)});
}

Value multiply_blocks(const Target& target, Value x, Value ids, const WeightOperand& stacked,
                      DType dtype) {
  const int64_t blocks = count_blocks(x, stacked.dims[0]);
  const Blocks layout = blocks_of(ids, stacked.dims[0], blocks);
  const Value sorted = ir::take(x, layout.sources, 0);
  const Shape all(dtype, {blocks * kExpertBlock, stacked.dims[1]});
  const auto turn = [&](Value block, const ir::Values& v) -> ir::Values {
    const Value first = block * static_cast<double>(kExpertBlock);
    const Value y = weight_product(target, rows_of_block(sorted, first),
                                   at_expert(stacked, ir::dynamic_index(layout.experts, block)));
    return {
        ir::dynamic_update_slice(v[0], ir::convert(y, dtype), {first, ir::scalar_like(first, 0)})};
  };
  const ir::Values start = {ir::full(x.function(), all, 0)};
  return ir::take(ir::repeat(blocks, start, turn)[0], layout.places, 0);
}

// Rows where the mask [rows] is false become zeros.
Value masked(Value mask, Value rows) {
  return ir::select(ir::broadcast_in_dim(mask, rows.dims(), {0}), rows,
                    ir::full(rows.function(), rows.shape(), 0));
}

// Of x and of the weight [experts, out, in].
std::pair<Value, Value> multiply_back(Value x, Value ids, Value weight, Value cotangent) {
  ir::Function& function = x.function();
  const int64_t experts = weight.dim(0);
  const int64_t blocks = count_blocks(x, experts);
  const Blocks layout = blocks_of(ids, experts, blocks);
  const Value known = ir::reduce_or(one_hot(ids, experts), {1});
  // A place without a row has any row's number, but is not where that row is.
  const Value places = ir::iota(function, layout.sources.shape(), 0);
  const Value has_row =
      ir::compare(ir::take(layout.places, layout.sources, 0), places, ir::ComparisonDirection::kEq);
  const Value given = masked(known, ir::convert(cotangent, x.dtype()));
  const Value sorted_given = masked(has_row, ir::take(given, layout.sources, 0));
  const Value sorted = ir::take(x, layout.sources, 0);
  const ir::Precision precision = ir::precision_for(x.dtype());
  const auto turn = [&](Value block, const ir::Values& v) -> ir::Values {
    const Value first = block * static_cast<double>(kExpertBlock);
    const Value expert = ir::dynamic_index(layout.experts, block);
    const Value rows = rows_of_block(sorted_given, first);
    const Value own = ir::convert(ir::dynamic_index(weight, expert), x.dtype());
    const Value back = ir::dot_general(rows, own, {{}, {}, {1}, {0}}, std::nullopt, precision);
    const Value part = ir::dot_general(rows, rows_of_block(sorted, first), {{}, {}, {0}, {0}},
                                       DType::kF32, precision);
    return {ir::dynamic_update_slice(v[0], back, {first, ir::scalar_like(first, 0)}),
            ir::dynamic_update_index(v[1], ir::dynamic_index(v[1], expert) + part, expert)};
  };
  const ir::Values end = ir::repeat(blocks,
                                    {ir::full(function, sorted.shape(), 0),
                                     ir::full(function, Shape(DType::kF32, weight.dims()), 0)},
                                    turn);
  return {masked(known, ir::take(end[0], layout.places, 0)), ir::convert(end[1], weight.dtype())};
}

WeightOperand dense_operand(Value weight) {
  WeightOperand operand;
  operand.value = weight;
  operand.dims = weight.dims();
  return operand;
}

// (x, ids, weight) -> y
const ir::Function& blocks_function(ir::Module& module, const Target& target, Value x, Value ids,
                                    Value weight, DType dtype) {
  const std::string name =
      fmt::format("expert_blocks_{}x{}_{}_{}x{}_{}_{}", x.dim(0), x.dim(1), dtype_name(x.dtype()),
                  weight.dim(0), weight.dim(1), dtype_name(weight.dtype()), dtype_name(dtype));
  if (const ir::Function* known = module.find_function(name)) return *known;
  ir::Function& function = module.add_function(name);
  const auto forward = [target, dtype](const ir::Values& v) -> ir::Values {
    return {multiply_blocks(target, v[0], v[1], dense_operand(v[2]), dtype)};
  };
  ir::Values arguments;
  for (const Value value : {x, ids, weight}) {
    arguments.push_back(function.add_argument(value.shape()));
  }
  function.set_results(forward(arguments));
  function.set_gradient(
      {forward,
       [](const ir::Values& v, const ir::Values&, const ir::Values& cotangents) -> ir::Values {
         const auto [of_x, of_weight] = multiply_back(v[0], v[1], v[2], cotangents[0]);
         return {of_x, Value(), of_weight};
       }});
  return function;
}

}  // namespace

Value experts_by_blocks(const Target& target, Value x, Value ids, const WeightOperand& stacked,
                        DType dtype) {
  const bool dense = stacked.encoding == Encoding::kDense && !stacked.scales;
  if (!dense) return multiply_blocks(target, x, ids, stacked, dtype);
  ir::Module& module = x.function().module();
  return ir::call(blocks_function(module, target, x, ids, stacked.value, dtype),
                  {x, ids, stacked.value})[0];
}

}  // namespace ttpu::kernels::reference
