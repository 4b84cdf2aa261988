// Mixtral: Mistral with eight experts in the place of the MLP.
#include "ttpu/models/common.h"
#include "ttpu/models/families.h"

namespace ttpu::models {

const char* const kMixtralDefaults = R"(
  {"rms_norm_eps": 1e-5, "max_position_embeddings": 131072, "num_key_value_heads": 8,
  "rope_theta": 1000000, "num_experts_per_tok": 2})";

nn::DecoderSpec build_mixtral(const JsonView& config) {
  nn::DecoderSpec spec = build_mistral(config);  // the defaults are Mixtral's own
  const Sizes sizes = read_sizes(config);
  const int64_t experts = expert_count(config);
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
