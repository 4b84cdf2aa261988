#include "ttpu/kernels/linear/expert_blocks.h"

#include "ttpu/ir/ir.h"
#include "ttpu/ir/module.h"
#include "ttpu/kernels/linear/product.h"
#include "ttpu/kernels/linear/scales.h"

namespace ttpu::kernels::reference {
namespace {

using ir::Value;

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

Value rows_of_block(Value rows, Value first) {
  return ir::dynamic_slice(rows, {first, ir::scalar_like(first, 0)}, {kExpertBlock, rows.dim(1)});
}

// `turn` for each block, with the number of its first row.
ir::Values for_blocks(
    Value experts, const ir::Values& start,
    const std::function<ir::Values(Value expert, Value first, const ir::Values& v)>& turn) {
  return ir::repeat(experts.dim(0), start, [&](Value block, const ir::Values& v) {
    return turn(ir::dynamic_index(experts, block), block * static_cast<double>(kExpertBlock), v);
  });
}

Value multiply_blocks(const Target& target, Value rows, Value experts, const WeightOperand& stacked,
                      DType dtype) {
  const Shape all(dtype, {rows.dim(0), stacked.dims[1]});
  const auto turn = [&](Value expert, Value first, const ir::Values& v) -> ir::Values {
    const Value y = weight_product(target, rows_of_block(rows, first), at_expert(stacked, expert));
    return {
        ir::dynamic_update_slice(v[0], ir::convert(y, dtype), {first, ir::scalar_like(first, 0)})};
  };
  return for_blocks(experts, {ir::full(rows.function(), all, 0)}, turn)[0];
}

// Of the rows and of the weight [experts, out, in].
std::pair<Value, Value> multiply_back(Value rows, Value experts, Value weight, Value cotangent) {
  ir::Function& function = rows.function();
  const Value given = ir::convert(cotangent, rows.dtype());
  const ir::Precision precision = ir::precision_for(rows.dtype());
  const auto turn = [&](Value expert, Value first, const ir::Values& v) -> ir::Values {
    const Value own_given = rows_of_block(given, first);
    const Value own = ir::convert(ir::dynamic_index(weight, expert), rows.dtype());
    const Value back = ir::dot_general(own_given, own, {{}, {}, {1}, {0}}, std::nullopt, precision);
    const Value part = ir::dot_general(own_given, rows_of_block(rows, first), {{}, {}, {0}, {0}},
                                       DType::kF32, precision);
    return {ir::dynamic_update_slice(v[0], back, {first, ir::scalar_like(first, 0)}),
            ir::dynamic_update_index(v[1], ir::dynamic_index(v[1], expert) + part, expert)};
  };
  const ir::Values end = for_blocks(experts,
                                    {ir::full(function, rows.shape(), 0),
                                     ir::full(function, Shape(DType::kF32, weight.dims()), 0)},
                                    turn);
  return {end[0], ir::convert(end[1], weight.dtype())};
}

WeightOperand dense_operand(Value weight) {
  WeightOperand operand;
  operand.value = weight;
  operand.dims = weight.dims();
  return operand;
}

// (rows, experts of blocks, weight) -> y
const ir::Function& blocks_function(ir::Module& module, const Target& target, Value rows,
                                    Value experts, Value weight, DType dtype) {
  const std::string name = fmt::format(
      "expert_blocks_{}x{}_{}_{}x{}_{}_{}", rows.dim(0), rows.dim(1), dtype_name(rows.dtype()),
      weight.dim(0), weight.dim(1), dtype_name(weight.dtype()), dtype_name(dtype));
  if (const ir::Function* known = module.find_function(name)) return *known;
  ir::Function& function = module.add_function(name);
  const auto forward = [target, dtype](const ir::Values& v) -> ir::Values {
    return {multiply_blocks(target, v[0], v[1], dense_operand(v[2]), dtype)};
  };
  ir::Values arguments;
  for (const Value value : {rows, experts, weight}) {
    arguments.push_back(function.add_argument(value.shape()));
  }
  function.set_results(forward(arguments));
  function.set_gradient(
      {forward,
       [](const ir::Values& v, const ir::Values&, const ir::Values& cotangents) -> ir::Values {
         const auto [of_rows, of_weight] = multiply_back(v[0], v[1], v[2], cotangents[0]);
         return {of_rows, Value(), of_weight};
       }});
  return function;
}

Value products(const Target& target, Value rows, Value experts, const WeightOperand& stacked,
               DType dtype) {
  const bool dense = stacked.encoding == Encoding::kDense && !stacked.scales;
  if (!dense) return multiply_blocks(target, rows, experts, stacked, dtype);
  ir::Module& module = rows.function().module();
  return ir::call(blocks_function(module, target, rows, experts, stacked.value, dtype),
                  {rows, experts, stacked.value})[0];
}

}  // namespace

ExpertBlocks expert_blocks(Value ids, int64_t experts, bool sorted_before) {
  ir::Function& function = ids.function();
  const auto numbers = [&](int64_t count) {
    return ir::iota(function, Shape(DType::kS32, {count}), 0);
  };
  const int64_t rows = ids.dim(0);
  // At most as many as full ones and one more for each expert.
  const int64_t blocks = rows / kExpertBlock + experts;
  const int64_t places = blocks * kExpertBlock;
  const SortedRows sorted = sorted_rows(ids, experts, sorted_before);
  constexpr auto kRows = static_cast<double>(kExpertBlock);
  const Value block_counts =
      ir::divide(sorted.counts + (kRows - 1), ir::full_like(sorted.counts, kRows));
  const Value first_blocks = sums_before(block_counts);
  // A place minus this is a place among the sorted rows.
  const Value shifts = first_blocks * kRows - sums_before(sorted.counts);
  ExpertBlocks result;
  result.experts = ranges_of(first_blocks + block_counts, blocks);
  const Value shift = ir::reshape(
      ir::broadcast_in_dim(ir::take(shifts, result.experts, 0), {blocks, kExpertBlock}, {0}),
      {places});
  const Value position = ir::clamp(ir::scalar_like(shift, 0), numbers(places) - shift,
                                   ir::scalar_like(shift, static_cast<double>(rows - 1)));
  result.rows.sources = sorted_before ? position : ir::take(sorted.order, position, 0);
  const Value expert =
      ir::minimum(sorted.experts, ir::full_like(sorted.experts, static_cast<double>(experts - 1)));
  result.rows.places = unsorted(sorted, numbers(rows) + ir::take(shifts, expert, 0));
  result.rows.known = has_expert(ids, experts);
  return result;
}

bool takes_blocks(int64_t rows) { return rows > 4 * kExpertBlock; }

Value linear_of_blocks(const Target& target, Value x, Value block_experts,
                       const WeightOperand& stacked, const std::optional<Value>& bias) {
  // Where nothing is added, rounding can come first, which halves what the loop writes.
  const Value y = products(target, x, block_experts, stacked, bias ? DType::kF32 : x.dtype());
  if (!bias) return y;
  const int64_t out = y.dim(1);
  const Value of_blocks = ir::take(*bias, block_experts, 0);
  const Value of_rows = ir::reshape(
      ir::broadcast_in_dim(of_blocks, {block_experts.dim(0), kExpertBlock, out}, {0, 2}), y.dims());
  return ir::convert(y + ir::convert(of_rows, DType::kF32), x.dtype());
}

}  // namespace ttpu::kernels::reference
