// Activations that are rounded to a weight's type, in StableHLO. Internal to the linear operators.
#pragma once

#include "ttpu/kernels/linear/linear.h"

namespace ttpu::kernels::reference {

// kernels::rows_for() where no kernel computes the products.
Rows rounded_rows(const Target& target, const Rows& x, const std::vector<WeightOperand>& weights,
                  int64_t devices = 1);

}  // namespace ttpu::kernels::reference
