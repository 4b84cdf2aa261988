// DeepSeek-V2 and V3: multi-head latent attention, and experts chosen by group.
#include <cmath>

#include "ttpu/models/common.h"
#include "ttpu/models/families.h"

namespace ttpu::models {
namespace {

nn::MlaSpec latent_attention(const JsonView& config, const std::string& prefix,
                             const Sizes& sizes) {
  nn::MlaSpec mla;
  mla.prefix = prefix;
  mla.hidden = sizes.hidden;
  mla.heads = sizes.heads;
  mla.q_lora_rank = positive_or(config, "q_lora_rank", 0);
  mla.kv_lora_rank = positive(config, "kv_lora_rank");
  mla.qk_nope_head_dim = positive(config, "qk_nope_head_dim");
  mla.qk_rope_head_dim = positive(config, "qk_rope_head_dim");
  mla.v_head_dim = positive(config, "v_head_dim");
  mla.bias = config.get_or<bool>("attention_bias", false);
  mla.rope = nn::rope_from_config(config, mla.qk_rope_head_dim);
  mla.scale = 1.0 / std::sqrt(static_cast<double>(mla.qk_nope_head_dim + mla.qk_rope_head_dim));
  if (mla.rope.type != "default" && mla.rope.mscale_all_dim.value_or(0) != 0) {
    const double mscale = nn::yarn_mscale(mla.rope.factor, *mla.rope.mscale_all_dim);
    mla.scale *= mscale * mscale;
  }
  return mla;
}

nn::MoeSpec experts(const JsonView& config, const std::string& prefix, const Sizes& sizes,
                    const nn::MlpSpec& dense) {
  nn::MoeSpec moe;
  moe.router = prefix + "gate";
  moe.experts = positive(config, "n_routed_experts");
  moe.top_k = positive(config, "num_experts_per_tok");
  moe.scaling = config.get_or<double>("routed_scaling_factor", 1.0);
  moe.hidden = sizes.hidden;
  moe.intermediate = positive(config, "moe_intermediate_size");
  moe.activation = dense.activation;
  declare_experts(prefix + "experts.", kExpertProjections, &moe);
  const int64_t shared = config.get_or<int64_t>("n_shared_experts", 0);
  if (shared > 0) {
    moe.shared = dense;
    moe.shared.gate = prefix + "shared_experts.gate_proj";
    moe.shared.up = prefix + "shared_experts.up_proj";
    moe.shared.down = prefix + "shared_experts.down_proj";
    moe.shared.intermediate = shared * moe.intermediate;
  }
  return moe;
}

// Everything but the routing, which the versions differ in.
nn::DecoderSpec deepseek_decoder(const JsonView& config) {
  nn::DecoderSpec spec = llama_decoder(config);
  const Sizes sizes = read_sizes(config);
  const auto first_dense = static_cast<size_t>(config.get_or<int64_t>("first_k_dense_replace", 0));
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    spec.layers[i].attention = latent_attention(config, layer_prefix(i) + "self_attn.", sizes);
    if (i < first_dense) continue;
    spec.layers[i].mlp = experts(config, layer_prefix(i) + "mlp.", sizes, mlp_of(spec.layers[i]));
  }
  return spec;
}

}  // namespace

nn::DecoderSpec build_deepseek_v2(const JsonView& config) {
  nn::DecoderSpec spec = deepseek_decoder(config);
  const bool grouped =
      config.get_or<std::string>("topk_method", "greedy") == "group_limited_greedy";
  for (nn::LayerSpec& layer : spec.layers) {
    auto* moe = std::get_if<nn::MoeSpec>(&layer.mlp);
    if (moe == nullptr || !grouped) continue;
    moe->groups = positive_or(config, "n_group", 1);
    moe->top_groups = positive_or(config, "topk_group", 1);
  }
  return spec;
}

nn::DecoderSpec build_deepseek_v3(const JsonView& config) {
  nn::DecoderSpec spec = deepseek_decoder(config);
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    auto& mla = std::get<nn::MlaSpec>(spec.layers[i].attention);
    mla.interleaved_rope = config.get_or<bool>("rope_interleave", true);
    auto* moe = std::get_if<nn::MoeSpec>(&spec.layers[i].mlp);
    if (moe == nullptr) continue;
    moe->scoring = nn::MoeSpec::Scoring::kSigmoid;
    moe->correction_bias = layer_prefix(i) + "mlp.gate.e_score_correction_bias";
    moe->normalize = config.get_or<bool>("norm_topk_prob", true);
    moe->groups = positive_or(config, "n_group", 1);
    moe->top_groups = positive_or(config, "topk_group", 1);
    moe->group_by_top2 = true;
  }
  return spec;
}

}  // namespace ttpu::models
