// Arithmetic with numpy's broadcasting, on top of the exact operators. Dtypes never change by
// themselves: mixed dtypes throw. A plain number takes the dtype of the Value beside it.
#pragma once

#include <concepts>

#include "ttpu/ir/elementwise.h"
#include "ttpu/ir/value.h"

namespace ttpu::ir {

// Dimensions are matched from the last; 1 stretches. Throws with both shapes.
Dims broadcast_dims(const Dims& lhs, const Dims& rhs);
Value broadcast_to(Value x, Dims dims);
Value expand_dims(Value x, int axis);  // negative counts from the end of the result
Value squeeze(Value x, int axis);      // the dimension must be 1
// A scalar of x's function and dtype.
Value scalar_like(Value x, double value);
// As many of one number as x has, in its dtype.
Value full_like(Value x, double value);

Value operator+(Value lhs, Value rhs);
Value operator-(Value lhs, Value rhs);
Value operator*(Value lhs, Value rhs);
Value operator/(Value lhs, Value rhs);
Value operator-(Value x);

inline Value operator+(Value lhs, double rhs) { return lhs + scalar_like(lhs, rhs); }
inline Value operator-(Value lhs, double rhs) { return lhs - scalar_like(lhs, rhs); }
inline Value operator*(Value lhs, double rhs) { return lhs * scalar_like(lhs, rhs); }
inline Value operator/(Value lhs, double rhs) { return lhs / scalar_like(lhs, rhs); }
inline Value operator+(double lhs, Value rhs) { return scalar_like(rhs, lhs) + rhs; }
inline Value operator-(double lhs, Value rhs) { return scalar_like(rhs, lhs) - rhs; }
inline Value operator*(double lhs, Value rhs) { return scalar_like(rhs, lhs) * rhs; }
inline Value operator/(double lhs, Value rhs) { return scalar_like(rhs, lhs) / rhs; }
inline Value compare(Value lhs, double rhs, ComparisonDirection direction) {
  return compare(lhs, full_like(lhs, rhs), direction);
}

}  // namespace ttpu::ir
