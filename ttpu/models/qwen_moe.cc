// Qwen2-MoE and Qwen3-MoE: Qwen2 and Qwen3 with experts on most layers.
#include <algorithm>

#include "ttpu/models/common.h"
#include "ttpu/models/families.h"

namespace ttpu::models {
namespace {

nn::MoeSpec qwen_experts(const JsonView& config, const std::string& prefix, const Sizes& sizes) {
  nn::MoeSpec moe;
  moe.router = prefix + "gate";
  moe.normalize = config.get_or<bool>("norm_topk_prob", false);
  // Saved by transformers 5 as num_local_experts.
  moe.experts = positive(config, config.has("num_experts") ? "num_experts" : "num_local_experts");
  moe.top_k = positive(config, "num_experts_per_tok");
  moe.hidden = sizes.hidden;
  moe.intermediate = positive(config, "moe_intermediate_size");
  moe.activation = nn::activation_from_config(config.get_or<std::string>("hidden_act", "silu"));
  declare_experts(prefix + "experts.", kExpertProjections, &moe);
  return moe;
}

void set_experts(const JsonView& config, bool shared, nn::DecoderSpec* spec) {
  const Sizes sizes = read_sizes(config);
  const auto dense = config.get_or<std::vector<int64_t>>("mlp_only_layers", {});
  const auto step = static_cast<size_t>(positive_or(config, "decoder_sparse_step", 1));
  for (size_t i = 0; i < spec->layers.size(); ++i) {
    const bool listed =
        std::find(dense.begin(), dense.end(), static_cast<int64_t>(i)) != dense.end();
    if (listed || (i + 1) % step != 0) continue;
    const std::string prefix = layer_prefix(i) + "mlp.";
    nn::MoeSpec moe = qwen_experts(config, prefix, sizes);
    if (shared) {
      moe.shared = mlp_of(spec->layers[i]);
      moe.shared.gate = prefix + "shared_expert.gate_proj";
      moe.shared.up = prefix + "shared_expert.up_proj";
      moe.shared.down = prefix + "shared_expert.down_proj";
      moe.shared.intermediate = positive(config, "shared_expert_intermediate_size");
      moe.shared_gate = prefix + "shared_expert_gate";
    }
    spec->layers[i].mlp = std::move(moe);
  }
}

}  // namespace

nn::DecoderSpec build_qwen2_moe(const JsonView& config) {
  nn::DecoderSpec spec = build_qwen2(config);
  if (!config.get_or<bool>("qkv_bias", true)) {
    for (nn::LayerSpec& layer : spec.layers) attention_of(layer).qkv_bias = false;
  }
  set_experts(config, true, &spec);
  return spec;
}

nn::DecoderSpec build_qwen3_moe(const JsonView& config) {
  nn::DecoderSpec spec = build_qwen3(config);
  set_experts(config, false, &spec);
  return spec;
}

}  // namespace ttpu::models
