#include <optional>

#include "ttpu/grad/rules.h"
#include "ttpu/ir/infer.h"
#include "ttpu/ir/ir.h"

namespace ttpu::grad {
namespace {

using ir::Value;

// A reduced value as every reduced element saw it.
Value spread(Value reduced, Value like, const Dims& dimensions) {
  Dims mapping;
  for (int64_t i = 0; i < like.rank(); ++i) {
    if (!ir::contains(dimensions, i)) mapping.push_back(i);
  }
  return ir::broadcast_in_dim(reduced, like.dims(), mapping);
}

// The operand of a sort that numbers the elements, and so tells where each came from.
std::optional<size_t> numbering(const ir::Operation& sort) {
  for (size_t i = 0; i < sort.operands.size(); ++i) {
    const ir::Operation* producer = sort.operands[i].producer();
    if (producer != nullptr && producer->kind == ir::OpKind::kIota &&
        producer->attributes.get<int64_t>("iota_dimension") ==
            sort.attributes.get<int64_t>("dimension")) {
      return i;
    }
  }
  return std::nullopt;
}

// [.., rank] of i32: the whole index of what stands at each place, its number along `dimension`
// being `numbers`.
Value whole_indices(Value numbers, int64_t dimension) {
  ir::Values parts;
  for (int64_t i = 0; i < numbers.rank(); ++i) {
    const Value part = i == dimension ? numbers : ir::iota(numbers.function(), numbers.shape(), i);
    parts.push_back(ir::expand_dims(part, numbers.rank()));
  }
  return ir::concatenate(parts, numbers.rank());
}

}  // namespace

void reverse_reduce(const Reverse& reverse) {
  const ir::Operation& operation = reverse.operation();
  if (operation.results.size() != 1) reverse.refuse("of several operands has no gradient");
  if (reverse.wants(1)) reverse.refuse("has no gradient of where it begins");
  const auto& dimensions = reverse.attribute<Dims>("dimensions");
  const Value x = reverse.operand(0);
  if (combines_by(operation, ir::OpKind::kAdd)) {
    return reverse.give(0, [&] { return spread(reverse.cotangent(), x, dimensions); });
  }
  if (!combines_by(operation, ir::OpKind::kMaximum) &&
      !combines_by(operation, ir::OpKind::kMinimum)) {
    reverse.refuse("has a gradient where it is a sum, a maximum or a minimum");
  }
  reverse.give(0, [&] {
    // Equal elements share it, as JAX has it.
    const Value best =
        ir::compare(x, spread(reverse.result(), x, dimensions), ir::ComparisonDirection::kEq);
    const Value ones = ir::convert(best, x.dtype());
    const Value each = reverse.cotangent() / ir::reduce_sum(ones, dimensions);
    return ones * spread(each, x, dimensions);
  });
}

void reverse_sort(const Reverse& reverse) {
  const ir::Operation& operation = reverse.operation();
  const std::optional<size_t> numbers = numbering(operation);
  if (!numbers) reverse.refuse("has a gradient where one operand is an iota along its dimension");
  const auto dimension = reverse.attribute<int64_t>("dimension");
  const Value indices = whole_indices(reverse.result(*numbers), dimension);
  for (size_t i = 0; i < operation.operands.size(); ++i) {
    const Value ct = reverse.cotangent(i);
    if (!ct) continue;
    reverse.give(i, [&] {
      const Dims all = counted(ct.rank());
      const Value zero = ir::full_like(ct, 0);
      return ir::scatter(
          {zero}, indices, {ct},
          {.inserted_window_dims = all,
           .scatter_dims_to_operand_dims = all,
           .index_vector_dim = ct.rank()},
          [](const ir::Values& v) { return ir::Values{v[0] + v[1]}; }, false, true)[0];
    });
  }
}

}  // namespace ttpu::grad
