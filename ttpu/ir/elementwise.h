// Elementwise operators. Operands have exactly equal shapes (see broadcasting.h for more), and an
// operator that is not defined for a dtype throws. Semantics: the StableHLO specification.
#pragma once

#include <functional>
#include <optional>

#include "ttpu/ir/attribute.h"

namespace ttpu::ir {

Value abs(Value x);
Value cbrt(Value x);
Value ceil(Value x);
Value cosine(Value x);
Value count_leading_zeros(Value x);
Value exponential(Value x);
Value exponential_minus_one(Value x);
Value floor(Value x);
Value is_finite(Value x);  // i1
Value log(Value x);
Value log_plus_one(Value x);
Value logistic(Value x);
Value negate(Value x);
Value not_(Value x);
Value popcnt(Value x);
Value round_nearest_afz(Value x);
Value round_nearest_even(Value x);
Value rsqrt(Value x);
Value sign(Value x);
Value sine(Value x);
Value sqrt(Value x);
Value tan(Value x);
Value tanh(Value x);

Value add(Value lhs, Value rhs);
Value and_(Value lhs, Value rhs);
Value atan2(Value lhs, Value rhs);
Value divide(Value lhs, Value rhs);
Value maximum(Value lhs, Value rhs);
Value minimum(Value lhs, Value rhs);
Value multiply(Value lhs, Value rhs);
Value or_(Value lhs, Value rhs);
Value power(Value lhs, Value rhs);
Value remainder(Value lhs, Value rhs);
Value shift_left(Value lhs, Value rhs);
Value shift_right_arithmetic(Value lhs, Value rhs);
Value shift_right_logical(Value lhs, Value rhs);
Value subtract(Value lhs, Value rhs);
Value xor_(Value lhs, Value rhs);

// min and max: the shape of x, or scalars.
Value clamp(Value min, Value x, Value max);
// Without `type`: FLOAT, SIGNED or UNSIGNED as the dtype has it.
Value compare(Value lhs, Value rhs, ComparisonDirection direction,
              std::optional<ComparisonType> type = std::nullopt);
// pred: i1, of the shape of the others or a scalar.
Value select(Value pred, Value on_true, Value on_false);
// `body` maps one scalar of each input to one scalar.
Value map(const Values& inputs, const std::function<Value(const Values&)>& body);

// The error function from other operators, to the rounding of f32 (f64 gets no more than that).
// Smaller dtypes are computed in f32.
Value erf(Value x);

}  // namespace ttpu::ir
