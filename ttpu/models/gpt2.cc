// GPT-2: layer norms, learned positions, matrices stored [in, out] (Conv1D).
#include <cmath>

#include "ttpu/base/error.h"
#include "ttpu/models/common.h"
#include "ttpu/models/families.h"

namespace ttpu::models {

const char* const kGpt2Defaults = R"(
  {"n_positions": 1024, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
  "scale_attn_weights": true, "tie_word_embeddings": true})";

nn::DecoderSpec build_gpt2(const JsonView& config) {
  nn::DecoderSpec spec;
  spec.vocab = positive(config, "vocab_size");
  spec.hidden = positive(config, "n_embd");
  spec.max_positions = positive(config, "n_positions");
  if (!config.get<bool>("tie_word_embeddings")) {
    spec.head = {"lm_head", spec.hidden, spec.vocab, false, {"vocab", "embed"}};
  }
  spec.embedding = "wte.weight";
  spec.position_embedding = "wpe.weight";
  spec.name_prefixes = {{"", "transformer."}};
  const int64_t heads = positive(config, "n_head");
  const int64_t layers = positive(config, "n_layer");
  require(layers <= 4096 && spec.hidden % heads == 0,
          "[config] {}: {} layers, and n_embd {} over {} heads", config.what(), layers, spec.hidden,
          heads);
  const double epsilon = config.get<double>("layer_norm_epsilon");
  const auto layer_norm = [&](const std::string& name) {
    return nn::NormSpec{nn::NormKind::kLayer, name, spec.hidden, epsilon, false, true};
  };
  spec.final_norm = layer_norm("ln_f");
  for (int64_t i = 0; i < layers; ++i) {
    const std::string prefix = fmt::format("h.{}.", i);
    nn::AttentionSpec attention;
    attention.qkv = prefix + "attn.c_attn";
    attention.o = prefix + "attn.c_proj";
    attention.transposed = true;
    attention.hidden = spec.hidden;
    attention.heads = heads;
    attention.kv_heads = heads;
    attention.head_dim = spec.hidden / heads;
    attention.qkv_bias = true;
    attention.o_bias = true;
    attention.scale = config.get<bool>("scale_attn_weights")
                          ? 1.0 / std::sqrt(static_cast<double>(attention.head_dim))
                          : 1.0;
    if (config.get_or<bool>("scale_attn_by_inverse_layer_idx", false)) {
      attention.scale /= static_cast<double>(i + 1);
    }
    nn::MlpSpec mlp;
    mlp.up = prefix + "mlp.c_fc";
    mlp.down = prefix + "mlp.c_proj";
    mlp.hidden = spec.hidden;
    mlp.intermediate = positive_or(config, "n_inner", 4 * spec.hidden);
    mlp.activation = nn::activation_from_config(config.get<std::string>("activation_function"));
    mlp.bias = true;
    mlp.transposed = true;
    nn::LayerSpec layer;
    layer.attention_norm = layer_norm(prefix + "ln_1");
    layer.mlp_norm = layer_norm(prefix + "ln_2");
    layer.attention = attention;
    layer.mlp = mlp;
    spec.layers.push_back(std::move(layer));
  }
  return spec;
}

}  // namespace ttpu::models
