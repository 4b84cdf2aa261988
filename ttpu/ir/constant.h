// Constants and iota.
#pragma once

#include "ttpu/ir/literal.h"
#include "ttpu/ir/value.h"

namespace ttpu::ir {

Value constant(Function& function, Literal literal);
Value scalar(Function& function, DType dtype, double value);
Value full(Function& function, Shape shape, double value);
// A vector of i32 or i64 constants.
Value constant_vector(Function& function, DType dtype, const std::vector<int64_t>& values);
// The lowest and highest finite value, or -inf and +inf for floats that have it: identities of
// maximum and minimum.
Value lowest(Function& function, DType dtype);
Value highest(Function& function, DType dtype);
// 0, 1, 2, ... along `dim`.
Value iota(Function& function, Shape shape, int64_t dim);

}  // namespace ttpu::ir
