// The linear operators in StableHLO.
#pragma once

#include "ttpu/kernels/linear/linear.h"

namespace ttpu::kernels::reference {

ir::Value linear(Platform platform, ir::Value x, const WeightOperand& weight,
                 std::optional<ir::Value> bias, DType result);
ir::Value gated_linear(Platform platform, ir::Value x, const WeightOperand& gate,
                       const WeightOperand& up, Activation activation,
                       std::optional<ir::Value> gate_bias, std::optional<ir::Value> up_bias);
ir::Value expert_linear(Platform platform, ir::Value x, ir::Value expert_ids,
                        const WeightOperand& stacked, std::optional<ir::Value> bias);

}  // namespace ttpu::kernels::reference
