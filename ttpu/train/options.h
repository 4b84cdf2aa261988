// What a step of training is told.
#pragma once

#include <cstdint>

#include "ttpu/base/dtype.h"
#include "ttpu/grad/pullback.h"
#include "ttpu/nn/decoder.h"
#include "ttpu/parallel/strategy.h"

namespace ttpu::train {

// The axis of the mesh over whose replicas of the model the state of training is divided; replicas
// along "data" have equal state.
inline constexpr const char* kFsdpAxis = "fsdp";

// AdamW (arXiv:1711.05101), with the defaults of torch.optim.AdamW.
struct AdamW {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0.01;  // of matrices; not of norms and biases
  double max_grad_norm = 1;    // of all gradients together; longer ones are cut to it. 0: never
};

// How the state is divided over the fsdp axis, as DeepSpeed numbers it (ZeRO, arXiv:1910.02054).
enum class ZeroStage {
  kNone = 0,
  kOptimizer = 1,   // master weights and moments; all weights are gathered once a step
  kGradients = 2,   // and the gradients
  kParameters = 3,  // and the weights: a layer's are gathered where it is computed
};

struct StepOptions {
  int64_t seq_len = 0;
  int64_t micro_batch = 1;   // sequences at once on each replica
  int64_t accumulation = 1;  // micro-batches of a step
  ZeroStage zero_stage = ZeroStage::kParameters;
  grad::Remat remat = grad::Remat::kFull;
  nn::Layers layers = nn::Layers::kScanned;
  DType compute = DType::kBF16;  // of weights where they are used, of activations, and of gradients
                                 // on their way; state and sums are f32
  AdamW optimizer;

  int64_t tokens() const { return seq_len * micro_batch; }  // at once on each replica
};

// The mesh: replicas with equal state, replicas that divide it, devices that share a layer.
parallel::Mesh train_mesh(int64_t data, int64_t fsdp, int64_t tensor);

}  // namespace ttpu::train
