// Normalization in plain StableHLO.
#pragma once

#include "ttpu/kernels/norm/norm.h"

namespace ttpu::kernels::reference {

ir::Value norm(ir::Value x, const NormWeights& weights, const NormOptions& options);

}  // namespace ttpu::kernels::reference
