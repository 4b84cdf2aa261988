#include <algorithm>

#include "ttpu/grad/rules.h"
#include "ttpu/ir/ir.h"

namespace ttpu::grad {
namespace {

using ir::Value;

ir::Values starts_of(const Reverse& reverse, size_t first) {
  const ir::Values& operands = reverse.operation().operands;
  return {operands.begin() + static_cast<std::ptrdiff_t>(first), operands.end()};
}

}  // namespace

void reverse_reshape(const Reverse& reverse) {
  reverse.give(0, [&] { return ir::reshape(reverse.cotangent(), reverse.operand(0).dims()); });
}

void reverse_transpose(const Reverse& reverse) {
  reverse.give(0, [&] {
    return ir::transpose(reverse.cotangent(), inverse(reverse.attribute<Dims>("permutation")));
  });
}

void reverse_broadcast_in_dim(const Reverse& reverse) {
  reverse.give(0, [&] {
    const Value ct = reverse.cotangent();
    const Dims& own = reverse.operand(0).dims();
    const auto& mapping = reverse.attribute<Dims>("broadcast_dimensions");
    Dims summed;
    for (int64_t i = 0; i < ct.rank(); ++i) {
      const auto found = std::find(mapping.begin(), mapping.end(), i);
      const bool stretched =
          found != mapping.end() &&
          own[static_cast<size_t>(found - mapping.begin())] != ct.dim(static_cast<int>(i));
      if (found == mapping.end() || stretched) summed.push_back(i);
    }
    const Value sum = summed.empty() ? ct : ir::reduce_sum(ct, summed);
    // What is left stands in the order of the result; the operand's may be another.
    Dims order = counted(static_cast<int64_t>(mapping.size()));
    std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
      return mapping[static_cast<size_t>(a)] < mapping[static_cast<size_t>(b)];
    });
    Dims sorted;
    for (const int64_t dim : order) sorted.push_back(own[static_cast<size_t>(dim)]);
    const Value whole = ir::reshape(sum, sorted);
    if (std::is_sorted(order.begin(), order.end())) return whole;
    return ir::transpose(whole, inverse(order));
  });
}

void reverse_slice(const Reverse& reverse) {
  reverse.give(0, [&] {
    const Value ct = reverse.cotangent();
    const auto& start = reverse.attribute<Dims>("start_indices");
    const auto& strides = reverse.attribute<Dims>("strides");
    Dims high, interior;
    for (size_t i = 0; i < start.size(); ++i) {
      const int64_t size = ct.dims()[i];
      const int64_t covered = size == 0 ? 0 : (size - 1) * strides[i] + 1;
      high.push_back(reverse.operand(0).dims()[i] - start[i] - covered);
      interior.push_back(strides[i] - 1);
    }
    return ir::pad(ct, ir::scalar_like(ct, 0), start, high, interior);
  });
}

void reverse_dynamic_slice(const Reverse& reverse) {
  reverse.give_part(
      0, [&] { return reverse.cotangent(); }, starts_of(reverse, 1));
}

void reverse_dynamic_update_slice(const Reverse& reverse) {
  const Value ct = reverse.cotangent();
  const ir::Values starts = starts_of(reverse, 2);
  const Value update = reverse.operand(1);
  reverse.give(0, [&] {
    const Value nothing = ir::full_like(update, 0);
    return ir::dynamic_update_slice(ct, nothing, starts);
  });
  reverse.give(1, [&] { return ir::dynamic_slice(ct, starts, update.dims()); });
}

void reverse_concatenate(const Reverse& reverse) {
  const auto axis = reverse.attribute<int64_t>("dimension");
  int64_t begin = 0;
  for (size_t i = 0; i < reverse.operation().operands.size(); ++i) {
    const int64_t end = begin + reverse.operand(i).dim(static_cast<int>(axis));
    reverse.give(i, [&] { return ir::slice_in_dim(reverse.cotangent(), axis, begin, end); });
    begin = end;
  }
}

void reverse_pad(const Reverse& reverse) {
  const Value ct = reverse.cotangent();
  const auto& low = reverse.attribute<Dims>("edge_padding_low");
  const auto& high = reverse.attribute<Dims>("edge_padding_high");
  const auto& interior = reverse.attribute<Dims>("interior_padding");
  const auto inside = [&] {
    Dims crop_low, crop_high;
    for (size_t i = 0; i < low.size(); ++i) {
      crop_low.push_back(-low[i]);
      crop_high.push_back(-high[i]);
    }
    const Value cropped = ir::pad(ct, ir::scalar_like(ct, 0), crop_low, crop_high);
    Dims strides;
    for (const int64_t gap : interior) strides.push_back(gap + 1);
    return ir::slice(cropped, Dims(low.size(), 0), cropped.dims(), strides);
  };
  reverse.give(0, inside);
  reverse.give(1, [&] {
    const Dims all = counted(ct.rank());
    return ir::reduce_sum(ct, all) - ir::reduce_sum(inside(), all);
  });
}

void reverse_reverse(const Reverse& reverse) {
  reverse.give(
      0, [&] { return ir::reverse(reverse.cotangent(), reverse.attribute<Dims>("dimensions")); });
}

}  // namespace ttpu::grad
