// Products of activations with one weight, in StableHLO. Internal to the linear operators.
#pragma once

#include "ttpu/kernels/linear/linear.h"

namespace ttpu::kernels::reference {

// What the product is computed in: see linear.h.
DType compute_dtype(ir::Value x, const WeightOperand& weight);

// x's last dimension with w's last; f32 or `floats`, of 8-bit integers i32. Batching: leading
// dimensions that both have.
ir::Value product(ir::Value x, ir::Value w, int64_t batching = 0, DType floats = DType::kF32);

// x with the weight, f32, in the form that is best for the weight's on the platform.
ir::Value weight_product(const Target& target, const Rows& x, const WeightOperand& weight,
                         int64_t batching = 0);

}  // namespace ttpu::kernels::reference
