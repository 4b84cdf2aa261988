// Mixtral: Mistral with eight experts in the place of the MLP.
#include "ttpu/models/common.h"
#include "ttpu/models/families.h"

namespace ttpu::models {

nn::DecoderSpec build_mixtral(const JsonView& config) {
  nn::DecoderSpec spec = build_mistral(config);
  const Sizes sizes = read_sizes(config);
  const int64_t experts = positive(config, "num_local_experts");
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    const std::string prefix = layer_prefix(i) + "block_sparse_moe.";
    nn::MoeSpec moe;
    moe.router = prefix + "gate";
    moe.normalize = true;
    moe.experts = experts;
    moe.top_k = positive(config, "num_experts_per_tok");
    moe.hidden = sizes.hidden;
    moe.intermediate = sizes.intermediate;
    moe.activation = mlp_of(spec.layers[i]).activation;
    declare_experts(prefix + "experts.", {"w1", "w3", "w2"}, &moe);
    spec.layers[i].mlp = std::move(moe);
  }
  return spec;
}

}  // namespace ttpu::models
