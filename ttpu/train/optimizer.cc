#include "ttpu/train/optimizer.h"

#include "ttpu/ir/ir.h"
#include "ttpu/parallel/collectives.h"

namespace ttpu::train {

using ir::Value;

OptimizerState update(const AdamW& options, const OptimizerState& state, Value gradient,
                      const UpdateInputs& inputs, bool decays) {
  const auto one_minus_power = [&](double beta) {
    return 1.0 - ir::power(ir::scalar_like(inputs.step, beta), inputs.step);
  };
  const Value own = gradient * inputs.scale;
  OptimizerState next;
  next.mean = state.mean * options.beta1 + own * (1 - options.beta1);
  next.square = state.square * options.beta2 + own * own * (1 - options.beta2);
  const Value size = ir::sqrt(next.square / one_minus_power(options.beta2)) + options.epsilon;
  Value change = next.mean / one_minus_power(options.beta1) / size;
  if (decays && options.weight_decay > 0) change = change + state.weight * options.weight_decay;
  next.weight = state.weight - change * inputs.learning_rate;
  return next;
}

Value gradient_norm(const Sharding& sharding, const std::vector<StateWeight>& weights,
                    const ir::Values& gradients) {
  Value sum;
  for (size_t i = 0; i < weights.size(); ++i) {
    Dims all;
    for (int64_t axis = 0; axis < gradients[i].rank(); ++axis) all.push_back(axis);
    const Value square =
        ir::reduce_sum(gradients[i] * gradients[i], all) / sharding.copies(weights[i]);
    sum = sum ? sum + square : square;
  }
  return ir::sqrt(parallel::sum(sum, sharding.mesh(), all_devices(sharding.mesh())));
}

Value clip_factor(const AdamW& options, Value norm) {
  if (options.max_grad_norm == 0) return ir::scalar_like(norm, 1);
  // As torch.nn.utils.clip_grad_norm_ has it.
  return ir::minimum(ir::scalar_like(norm, 1), options.max_grad_norm / (norm + 1e-6));
}

}  // namespace ttpu::train
