// Operators that move elements.
#pragma once

#include "ttpu/ir/value.h"

namespace ttpu::ir {

Value reshape(Value x, Dims dims);
Value transpose(Value x, Dims permutation);
// Dimension i of x becomes dimension broadcast_dimensions[i] of the result; sizes are equal or 1.
Value broadcast_in_dim(Value x, Dims dims, Dims broadcast_dimensions);
Value slice(Value x, Dims start, Dims limit, Dims strides = {});
// [begin, end) of one axis, which may be negative, and all of the others.
Value slice_in_dim(Value x, int64_t axis, int64_t begin, int64_t end);
// starts: one integer scalar for each dimension; clamped so that the slice is inside.
Value dynamic_slice(Value x, const Values& starts, Dims sizes);
Value dynamic_update_slice(Value x, Value update, const Values& starts);
// What stands at `index` (an integer scalar) of the first dimension, which goes away; and x with
// that replaced.
Value dynamic_index(Value x, Value index);
Value dynamic_update_index(Value x, Value update, Value index);
Value concatenate(const Values& values, int64_t axis);  // axis may be negative
// low and high may be negative, which crops; interior puts padding between elements.
Value pad(Value x, Value padding_value, Dims low, Dims high, Dims interior = {});
Value reverse(Value x, Dims dims);

}  // namespace ttpu::ir
