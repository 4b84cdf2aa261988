// The linear operators in StableHLO.
#pragma once

#include "ttpu/kernels/linear/linear.h"

namespace ttpu::kernels::reference {

ir::Value linear(const Target& target, const Rows& x, const WeightOperand& weight,
                 std::optional<ir::Value> bias, DType result);
ir::Value gated_linear(const Target& target, const Rows& x, const WeightOperand& gate,
                       const WeightOperand& up, Activation activation,
                       std::optional<ir::Value> gate_bias, std::optional<ir::Value> up_bias);
ir::Value expert_linear(const Target& target, ir::Value x, ir::Value expert_ids,
                        const WeightOperand& stacked, std::optional<ir::Value> bias);

}  // namespace ttpu::kernels::reference
