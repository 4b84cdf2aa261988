// Gather and scatter with all their dimension numbers.
#pragma once

#include "ttpu/ir/reduce.h"

namespace ttpu::ir {

Value gather(Value operand, Value start_indices, GatherDimensionNumbers dims, Dims slice_sizes,
             bool indices_are_sorted = false);
// update: (current, new) scalars of each input in turn, to scalars. Updates out of bounds are
// skipped.
Values scatter(const Values& inputs, Value scatter_indices, const Values& updates,
               ScatterDimensionNumbers dims, const Body& update, bool indices_are_sorted = false,
               bool unique_indices = false);
// numpy's take: dimension `axis` of x is replaced by the dimensions of `indices`.
Value take(Value x, Value indices, int axis);

}  // namespace ttpu::ir
