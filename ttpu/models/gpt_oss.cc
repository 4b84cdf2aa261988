// GPT-OSS: attention sinks, alternating windows, experts with a clamped SwiGLU.
#include "ttpu/models/common.h"
#include "ttpu/models/families.h"

namespace ttpu::models {
namespace {

// Stored [experts, in, out].
nn::WeightDecl stored_transposed(const std::string& name, int64_t experts, int64_t out,
                                 int64_t in) {
  nn::WeightDecl decl;
  decl.names = {name};
  decl.dims = {experts, out, in};
  decl.is_matrix = true;
  decl.transposed = true;
  return decl;
}

}  // namespace

const char* const kGptOssDefaults = R"(
  {"rms_norm_eps": 1e-5, "max_position_embeddings": 131072, "num_key_value_heads": 8, "head_dim": 64,
  "sliding_window": 128, "attention_bias": true, "num_experts_per_tok": 4, "rope_theta": 150000,
  "swiglu_alpha": 1.702, "swiglu_limit": 7.0,
  "rope_parameters": {"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0,
                      "truncate": false, "original_max_position_embeddings": 4096}})";

nn::DecoderSpec build_gpt_oss(const JsonView& config) {
  nn::DecoderSpec spec = llama_decoder(config);
  const Sizes sizes = read_sizes(config);
  const bool bias = config.get<bool>("attention_bias");
  spec.final_norm.scaled_in_f32 = true;
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    spec.layers[i].attention_norm.scaled_in_f32 = true;
    spec.layers[i].mlp_norm.scaled_in_f32 = true;
    nn::AttentionSpec& attention = attention_of(spec.layers[i]);
    attention.sinks = layer_prefix(i) + "self_attn.sinks";
    attention.qkv_bias = bias;
    attention.o_bias = bias;
    const std::string prefix = layer_prefix(i) + "mlp.";
    nn::MoeSpec moe;
    moe.router = prefix + "router";
    moe.router_bias = true;
    moe.softmax_after_top_k = true;
    moe.experts = expert_count(config);
    moe.top_k = positive(config, "num_experts_per_tok");
    moe.hidden = sizes.hidden;
    moe.intermediate = sizes.intermediate;
    moe.combine = nn::MoeSpec::Combine::kGptOss;
    moe.swiglu_limit = config.get<double>("swiglu_limit");
    moe.swiglu_alpha = config.get<double>("swiglu_alpha");
    moe.gate = stored_transposed(prefix + "experts.gate_up_proj", moe.experts, sizes.intermediate,
                                 sizes.hidden);
    moe.gate.row_stride = 2;
    moe.up = moe.gate;
    moe.up.row_offset = 1;
    moe.down = stored_transposed(prefix + "experts.down_proj", moe.experts, sizes.hidden,
                                 sizes.intermediate);
    moe.gate.axes = moe.up.axes = {"experts", "expert_mlp", "embed"};
    moe.down.axes = {"experts", "embed", "expert_mlp"};
    moe.gate_up_bias = prefix + "experts.gate_up_proj_bias";
    moe.down_bias = prefix + "experts.down_proj_bias";
    spec.layers[i].mlp = std::move(moe);
  }
  set_windows(config,
              sliding_layers(config, spec.layers.size(), [](size_t i) { return i % 2 == 0; }),
              &spec);
  return spec;
}

}  // namespace ttpu::models
