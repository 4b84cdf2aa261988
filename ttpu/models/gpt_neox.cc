// GPT-NeoX and Pythia: layer norms, partial rotary, fused matrix by head, parallel residual.
#include "ttpu/models/common.h"
#include "ttpu/models/families.h"

namespace ttpu::models {

nn::DecoderSpec build_gpt_neox(const JsonView& config) {
  nn::DecoderSpec spec = llama_decoder(config);
  const double epsilon = config.get_or<double>("layer_norm_eps", 1e-5);
  const bool bias = config.get_or<bool>("attention_bias", true);
  const auto layer_norm = [&](const std::string& name) {
    return nn::NormSpec{nn::NormKind::kLayer, name, spec.hidden, epsilon, false, true};
  };
  spec.embedding = "gpt_neox.embed_in.weight";
  spec.final_norm = layer_norm("gpt_neox.final_layer_norm");
  if (!spec.head.name.empty()) spec.head.name = "embed_out";
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    const std::string prefix = fmt::format("gpt_neox.layers.{}.", i);
    nn::LayerSpec& layer = spec.layers[i];
    layer.attention_norm = layer_norm(prefix + "input_layernorm");
    layer.mlp_norm = layer_norm(prefix + "post_attention_layernorm");
    layer.parallel = config.get_or<bool>("use_parallel_residual", true);
    nn::AttentionSpec& attention = attention_of(layer);
    attention.qkv = prefix + "attention.query_key_value";
    attention.layout = nn::AttentionSpec::Layout::kPerHead;
    attention.o = prefix + "attention.dense";
    attention.qkv_bias = bias;
    attention.o_bias = bias;
    if (!config.has("rope_parameters")) {
      attention.rope->theta = config.get_or<double>("rotary_emb_base", 10000);
      attention.rope->dim = static_cast<int64_t>(static_cast<double>(attention.head_dim) *
                                                 config.get_or<double>("rotary_pct", 0.25));
    }
    nn::MlpSpec& mlp = mlp_of(layer);
    mlp.gate.clear();
    mlp.up = prefix + "mlp.dense_h_to_4h";
    mlp.down = prefix + "mlp.dense_4h_to_h";
    mlp.bias = true;
  }
  return spec;
}

}  // namespace ttpu::models
