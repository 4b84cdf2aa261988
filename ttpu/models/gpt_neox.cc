// GPT-NeoX and Pythia: layer norms, partial rotary, fused matrix by head, parallel residual.
#include "ttpu/models/common.h"
#include "ttpu/models/families.h"

namespace ttpu::models {

const char* const kGptNeoxDefaults = R"(
  {"hidden_act": "gelu", "max_position_embeddings": 2048, "layer_norm_eps": 1e-5,
  "use_parallel_residual": true, "attention_bias": true, "rotary_emb_base": 10000,
  "rotary_pct": 0.25})";

nn::DecoderSpec build_gpt_neox(const JsonView& config) {
  Json named = config.json();  // its own names for what others call so
  named["rope_theta"] = config.get<double>("rotary_emb_base");
  named["partial_rotary_factor"] = config.get<double>("rotary_pct");
  nn::DecoderSpec spec = llama_decoder(JsonView(named, config.what()), true);
  const double epsilon = config.get<double>("layer_norm_eps");
  const bool bias = config.get<bool>("attention_bias");
  const auto layer_norm = [&](const std::string& name) {
    return nn::NormSpec{nn::NormKind::kLayer, name, spec.hidden, epsilon, false, true};
  };
  spec.embedding = "gpt_neox.embed_in.weight";
  spec.final_norm = layer_norm("gpt_neox.final_layer_norm");
  if (!spec.head.name.empty()) spec.head.name = "embed_out";
  spec.name_prefixes = {{"embed_out", "lm_head"}};  // as GGUF files are read
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    const std::string prefix = fmt::format("gpt_neox.layers.{}.", i);
    nn::LayerSpec& layer = spec.layers[i];
    layer.attention_norm = layer_norm(prefix + "input_layernorm");
    layer.mlp_norm = layer_norm(prefix + "post_attention_layernorm");
    layer.parallel = config.get<bool>("use_parallel_residual");
    nn::AttentionSpec& attention = attention_of(layer);
    attention.qkv = prefix + "attention.query_key_value";
    attention.layout = nn::AttentionSpec::Layout::kPerHead;
    attention.o = prefix + "attention.dense";
    attention.qkv_bias = bias;
    attention.o_bias = bias;
    nn::MlpSpec& mlp = mlp_of(layer);
    mlp.gate.clear();
    mlp.up = prefix + "mlp.dense_h_to_4h";
    mlp.down = prefix + "mlp.dense_4h_to_h";
    mlp.bias = true;
  }
  return spec;
}

}  // namespace ttpu::models
