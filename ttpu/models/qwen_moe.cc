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
  moe.experts = expert_count(config);
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

const char* const kQwen2MoeDefaults = R"(
  {"rms_norm_eps": 1e-6, "max_position_embeddings": 32768, "num_key_value_heads": 16,
  "use_sliding_window": false, "sliding_window": 4096, "max_window_layers": 28,
  "decoder_sparse_step": 1, "moe_intermediate_size": 1408, "num_experts_per_tok": 4,
  "shared_expert_intermediate_size": 5632, "norm_topk_prob": false, "qkv_bias": true})";

const char* const kQwen3MoeDefaults = R"(
  {"rms_norm_eps": 1e-6, "max_position_embeddings": 32768, "num_key_value_heads": 4,
  "use_sliding_window": false, "sliding_window": 4096, "decoder_sparse_step": 1,
  "moe_intermediate_size": 768, "num_experts_per_tok": 8, "norm_topk_prob": false})";

nn::DecoderSpec build_qwen2_moe(const JsonView& config) {
  nn::DecoderSpec spec = llama_decoder(config);
  for (nn::LayerSpec& layer : spec.layers) {
    attention_of(layer).qkv_bias = config.get<bool>("qkv_bias");
    attention_of(layer).o_bias = false;
  }
  const auto even_and_below = [](int64_t i, int64_t end) { return i % 2 == 0 && i < end; };
  set_windows_when_used(config, even_and_below, &spec);
  set_experts(config, true, &spec);
  return spec;
}

nn::DecoderSpec build_qwen3_moe(const JsonView& config) {
  nn::DecoderSpec spec = llama_decoder(config);
  add_head_norms(read_sizes(config), false, &spec);
  if (config.get<bool>("use_sliding_window")) slide_everywhere(config, &spec);
  set_experts(config, false, &spec);
  return spec;
}

}  // namespace ttpu::models
