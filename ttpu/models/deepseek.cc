// DeepSeek-V2 and V3: multi-head latent attention, and experts chosen by group.
#include <cmath>

#include "ttpu/base/error.h"
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
  moe.router_in_f32 = true;
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

// The one value that the published code has here.
void require_value(const JsonView& config, const char* field, const char* expected) {
  const auto value = config.get_or<std::string>(field, expected);
  require(value == expected, "[config] {} of {} is '{}'; models of this family have '{}'", field,
          config.what(), value, expected);
}

// Everything but the routing, which the versions differ in.
nn::DecoderSpec deepseek_decoder(const JsonView& config) {
  nn::DecoderSpec spec = llama_decoder(config);
  const Sizes sizes = read_sizes(config);
  require(sizes.kv_heads == sizes.heads,
          "[config] {} has {} key-value heads and {} heads; latent attention has as many of both",
          config.what(), sizes.kv_heads, sizes.heads);
  const auto first_dense = static_cast<size_t>(config.get_or<int64_t>("first_k_dense_replace", 0));
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    spec.layers[i].attention = latent_attention(config, layer_prefix(i) + "self_attn.", sizes);
    if (i < first_dense) continue;
    spec.layers[i].mlp = experts(config, layer_prefix(i) + "mlp.", sizes, mlp_of(spec.layers[i]));
  }
  return spec;
}

}  // namespace

const char* const kDeepseekV2Defaults = R"(
  {"rms_norm_eps": 1e-6, "max_position_embeddings": 2048, "q_lora_rank": 1536, "kv_lora_rank": 512,
  "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "n_routed_experts": 64,
  "n_shared_experts": 2, "moe_intermediate_size": 1407, "topk_method": "greedy"})";

const char* const kDeepseekV3Defaults = R"(
  {"rms_norm_eps": 1e-6, "max_position_embeddings": 4096, "q_lora_rank": 1536, "kv_lora_rank": 512,
  "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "n_shared_experts": 1,
  "moe_intermediate_size": 2048, "num_experts_per_tok": 8, "n_group": 8, "topk_group": 4,
  "routed_scaling_factor": 2.5, "first_k_dense_replace": 3, "norm_topk_prob": true})";

nn::DecoderSpec build_deepseek_v2(const JsonView& config) {
  require_value(config, "scoring_func", "softmax");
  require(!config.get_or<bool>("norm_topk_prob", false),
          "[config] {} has norm_topk_prob, which transformers ignores for deepseek_v2 and the "
          "published code does not; set it to false",
          config.what());
  nn::DecoderSpec spec = deepseek_decoder(config);
  const auto method = config.get<std::string>("topk_method");
  const bool grouped = method == "group_limited_greedy";
  require(grouped || method == "greedy",
          "[config] topk_method of {} is '{}', expected greedy or group_limited_greedy",
          config.what(), method);
  for (nn::LayerSpec& layer : spec.layers) {
    auto* moe = std::get_if<nn::MoeSpec>(&layer.mlp);
    if (moe == nullptr || !grouped) continue;
    moe->groups = positive_or(config, "n_group", 1);
    moe->top_groups = positive_or(config, "topk_group", 1);
  }
  return spec;
}

nn::DecoderSpec build_deepseek_v3(const JsonView& config) {
  require_value(config, "scoring_func", "sigmoid");
  require_value(config, "topk_method", "noaux_tc");
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
