// StarCoder2: layer norms, a plain MLP and biases everywhere.
#include "ttpu/models/common.h"
#include "ttpu/models/families.h"

namespace ttpu::models {

const char* const kStarcoder2Defaults = R"(
  {"max_position_embeddings": 4096, "num_key_value_heads": 2, "hidden_act": "gelu_pytorch_tanh",
  "norm_epsilon": 1e-5, "use_bias": true, "tie_word_embeddings": true})";

nn::DecoderSpec build_starcoder2(const JsonView& config) {
  nn::DecoderSpec spec = llama_decoder(config);
  const double epsilon = config.get<double>("norm_epsilon");
  const bool bias = config.get<bool>("use_bias");
  const auto layer_norm = [&](nn::NormSpec* norm) {
    norm->kind = nn::NormKind::kLayer;
    norm->epsilon = epsilon;
    norm->bias = true;
  };
  layer_norm(&spec.final_norm);
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    nn::LayerSpec& layer = spec.layers[i];
    layer_norm(&layer.attention_norm);
    layer_norm(&layer.mlp_norm);
    attention_of(layer).qkv_bias = bias;
    attention_of(layer).o_bias = bias;
    nn::MlpSpec& mlp = mlp_of(layer);
    mlp.gate.clear();
    mlp.up = layer_prefix(i) + "mlp.c_fc";
    mlp.down = layer_prefix(i) + "mlp.c_proj";
    mlp.bias = bias;
  }
  slide_everywhere(config, &spec);
  return spec;
}

}  // namespace ttpu::models
