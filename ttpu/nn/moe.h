// Mixture of experts: a router that picks experts for each token, the experts, and shared experts.
#pragma once

#include <string>
#include <vector>

#include "ttpu/kernels/ragged_paged_attention/ragged_paged_attention.h"
#include "ttpu/nn/layers.h"

namespace ttpu::nn {

struct MoeSpec {
  enum class Scoring { kSoftmax, kSigmoid };
  // How gate and up are combined: act(gate) * up, or GPT-OSS's clamped form.
  enum class Combine { kGated, kGptOss };

  std::string router;  // module: weight [experts, hidden]
  bool router_bias = false;
  bool router_in_f32 = false;   // its product too, whatever the compute type (DeepSeek)
  std::string correction_bias;  // tensor [experts] added for the choice alone (DeepSeek-V3)
  Scoring scoring = Scoring::kSoftmax;
  bool softmax_after_top_k = false;  // GPT-OSS: over the chosen logits
  bool normalize = false;            // chosen weights sum to one
  double scaling = 1;
  int64_t groups = 1;          // DeepSeek: experts in equal groups,
  int64_t top_groups = 1;      // of which so many may be chosen from
  bool group_by_top2 = false;  // a group's score: the sum of its two best, else its best

  int64_t experts = 0;
  int64_t top_k = 0;
  int64_t hidden = 0;
  int64_t intermediate = 0;
  kernels::Activation activation = kernels::Activation::kSilu;
  Combine combine = Combine::kGated;
  double swiglu_limit = 7.0;  // of GPT-OSS
  double swiglu_alpha = 1.702;
  // Declarations of the stacked matrices [experts, out, in] and, for GPT-OSS, bias tensors.
  WeightDecl gate, up, down;
  std::string gate_up_bias, down_bias;

  MlpSpec shared;           // empty `up`: none
  std::string shared_gate;  // module [1, hidden] whose sigmoid scales the shared expert
};

// Of the device's part of the tokens of `batch`. Padding goes to no expert where devices have
// different ones: it is all alike, and would go to the same few.
ir::Value moe(Context& context, const MoeSpec& spec, ir::Value own,
              const kernels::RaggedBatch& batch);

}  // namespace ttpu::nn
