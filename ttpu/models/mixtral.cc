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
    const auto matrix = [&](const char* name, int64_t out, int64_t in) {
      return expert_matrix(prefix + "experts.", name, experts, out, in,
                           {"experts", "mlp", "embed"});
    };
    nn::MoeSpec moe;
    moe.router = prefix + "gate";
    moe.normalize = true;
    moe.experts = experts;
    moe.top_k = positive(config, "num_experts_per_tok");
    moe.hidden = sizes.hidden;
    moe.intermediate = sizes.intermediate;
    moe.activation = mlp_of(spec.layers[i]).activation;
    moe.gate = matrix(".w1.weight", sizes.intermediate, sizes.hidden);
    moe.up = matrix(".w3.weight", sizes.intermediate, sizes.hidden);
    moe.down = matrix(".w2.weight", sizes.hidden, sizes.intermediate);
    spec.layers[i].mlp = std::move(moe);
  }
  return spec;
}

}  // namespace ttpu::models
