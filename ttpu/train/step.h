// The program of one step of training: micro-batches go forward and back, their gradients are
// summed, and the optimizer changes the state in place.
#pragma once

#include <memory>
#include <vector>

#include "ttpu/ir/module.h"
#include "ttpu/train/state.h"

namespace ttpu::train {

// Arguments, in this order; then the master weights, f32, in the order of `weights`; then the first
// moments, then the second ones, in the same order. The state is donated.
enum class StepArgument {
  kTokens,        // s32 [accumulation, micro_batch * seq_len] of each replica, side by side
  kTargets,       // the same: the token that should follow; below zero: none, not counted
  kLearningRate,  // f32
  kStep,          // f32: 1 for the first step
  kNumArguments,
};

// Results, in this order; then the state as the arguments have it.
enum class StepResult {
  kLoss,      // f32: the mean over the counted tokens of all replicas and micro-batches
  kGradNorm,  // f32: of that loss's gradient, before it is cut
  kNumResults,
};

struct TrainProgram {
  std::unique_ptr<ir::Module> module;
  const ir::Function* device = nullptr;  // what each device computes
  std::vector<StateWeight> weights;
  parallel::Layout layout;
  int64_t state_elements() const;  // on one device, of the master weights
};

// `mesh`: see train_mesh. `strategy`: how layers are divided along its tensor axis, "tensor" or
// "sequence". Throws kInvalidArgument for options that do not fit the model or each other, and
// kUnimplemented for a model with an operator that has no gradient.
TrainProgram build_train_program(const nn::DecoderSpec& spec, const StepOptions& options,
                                 const kernels::Target& target, const parallel::Mesh& mesh,
                                 const std::string& strategy);

}  // namespace ttpu::train
