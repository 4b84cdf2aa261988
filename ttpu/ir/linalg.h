// Matrix factorizations.
#pragma once

#include "ttpu/ir/attribute.h"

namespace ttpu::ir {

// Only the triangle asked for is defined in the result.
Value cholesky(Value x, bool lower = true);
// Solves op(a) x = b, or x op(a) = b when not left_side.
Value triangular_solve(Value a, Value b, bool left_side, bool lower, bool unit_diagonal = false,
                       Transpose transpose_a = Transpose::kNoTranspose);

}  // namespace ttpu::ir
