// AdamW on what a device has of the state.
#pragma once

#include "ttpu/train/options.h"
#include "ttpu/train/state.h"

namespace ttpu::train {

// Of one weight: f32, equal shapes.
struct OptimizerState {
  ir::Value weight, mean, square;
};

// All f32 scalars.
struct UpdateInputs {
  ir::Value learning_rate;
  ir::Value step;   // 1 for the first
  ir::Value scale;  // what gradients are multiplied with before
};

OptimizerState update(const AdamW& options, const OptimizerState& state, ir::Value gradient,
                      const UpdateInputs& inputs, bool decays);

// The length of all gradients together, f32, on every device. `gradients`: in the form of the
// state.
ir::Value gradient_norm(const Sharding& sharding, const std::vector<StateWeight>& weights,
                        const ir::Values& gradients);
// What cuts gradients of this length: 1 where they are no longer than max_grad_norm.
ir::Value clip_factor(const AdamW& options, ir::Value norm);

}  // namespace ttpu::train
