// Matrix products.
#pragma once

#include <optional>

#include "ttpu/ir/attribute.h"

namespace ttpu::ir {

// The result: batching dimensions, then what is left of lhs, then of rhs. The dtype is that of the
// operands unless given (bf16 x bf16 -> f32 accumulates and returns f32).
Value dot_general(Value lhs, Value rhs, DotDimensionNumbers dims,
                  std::optional<DType> dtype = std::nullopt,
                  Precision precision = Precision::kDefault);
// For products of numbers of this type. Of f32 the highest: by default a TPU multiplies them as
// bf16 and a GPU as TF32.
Precision precision_for(DType dtype);
// [..., m, k] x [..., k, n] -> [..., m, n]; leading dimensions equal.
Value matmul(Value lhs, Value rhs, std::optional<DType> dtype = std::nullopt);

}  // namespace ttpu::ir
