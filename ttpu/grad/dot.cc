#include <algorithm>

#include "ttpu/grad/rules.h"
#include "ttpu/ir/infer.h"
#include "ttpu/ir/ir.h"

namespace ttpu::grad {
namespace {

using ir::Value;

// The dimensions of one operand by what the product does with them.
struct Operand {
  Value value;
  Dims batching, contracting, free;
};

Operand operand_of(Value value, const Dims& batching, const Dims& contracting) {
  Operand operand{value, batching, contracting, {}};
  for (int64_t i = 0; i < value.rank(); ++i) {
    if (!ir::contains(batching, i) && !ir::contains(contracting, i)) operand.free.push_back(i);
  }
  return operand;
}

// The cotangent of `own`: the product of that of the result with `other`, over what is free in
// `other`. `free`: where that begins in the result.
Value cotangent_of(const Reverse& reverse, const Operand& own, const Operand& other, int64_t free) {
  const auto batch = static_cast<int64_t>(own.batching.size());
  // Summed in f32 or more by the product; what is multiplied is of the type of the other factor.
  const Value ct = ir::convert(reverse.cotangent(), other.value.dtype());
  const auto* precision =
      reverse.operation().attributes.get_if<std::vector<ir::Precision>>("precision_config");
  const Value product = ir::dot_general(
      ct, other.value,
      {counted(batch), other.batching, counted(static_cast<int64_t>(other.free.size()), free),
       other.free},
      own.value.dtype(), precision == nullptr ? ir::Precision::kDefault : precision->at(0));
  // It has the batching dimensions, the free ones of `own`, and the contracting ones as `other` has
  // them in turn. Where each of these goes in `own`:
  Dims places = own.batching;
  places.insert(places.end(), own.free.begin(), own.free.end());
  Dims rising = other.contracting;
  std::sort(rising.begin(), rising.end());
  for (const int64_t dim : rising) {
    const auto at = std::find(other.contracting.begin(), other.contracting.end(), dim);
    places.push_back(own.contracting[static_cast<size_t>(at - other.contracting.begin())]);
  }
  if (std::is_sorted(places.begin(), places.end())) return product;
  return ir::transpose(product, inverse(places));
}

}  // namespace

void reverse_dot_general(const Reverse& reverse) {
  const auto& dims = reverse.attribute<ir::DotDimensionNumbers>("dot_dimension_numbers");
  const Operand lhs = operand_of(reverse.operand(0), dims.lhs_batching, dims.lhs_contracting);
  const Operand rhs = operand_of(reverse.operand(1), dims.rhs_batching, dims.rhs_contracting);
  const auto batch = static_cast<int64_t>(lhs.batching.size());
  const auto lhs_free = static_cast<int64_t>(lhs.free.size());
  reverse.give(0, [&] { return cotangent_of(reverse, lhs, rhs, batch + lhs_free); });
  reverse.give(1, [&] { return cotangent_of(reverse, rhs, lhs, batch); });
}

}  // namespace ttpu::grad
