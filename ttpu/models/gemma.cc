// Gemma 1, 2 and 3 (text): norms that hold their weight less one, scaled embeddings, GELU; from 2
// on norms around both halves of a layer, soft caps and alternating windows; from 3 on head norms
// and two rotary bases.
#include <cmath>

#include "ttpu/base/error.h"
#include "ttpu/models/common.h"
#include "ttpu/models/families.h"

namespace ttpu::models {
namespace {

nn::DecoderSpec gemma_decoder(const JsonView& config) {
  nn::DecoderSpec spec = llama_decoder(config, true);
  spec.embedding_scale = std::sqrt(static_cast<double>(spec.hidden));
  spec.final_norm.one_plus = true;
  const std::string activation = config.get_or<std::string>(
      "hidden_activation", config.get_or<std::string>("hidden_act", "gelu_pytorch_tanh"));
  for (nn::LayerSpec& layer : spec.layers) {
    layer.attention_norm.one_plus = true;
    layer.mlp_norm.one_plus = true;
    // The first checkpoints say "gelu" and mean its tanh form.
    mlp_of(layer).activation = activation == "gelu" ? kernels::Activation::kGeluTanh
                                                    : nn::activation_from_config(activation);
  }
  return spec;
}

void set_sandwich_norms(nn::DecoderSpec* spec) {
  for (size_t i = 0; i < spec->layers.size(); ++i) {
    nn::LayerSpec& layer = spec->layers[i];
    const auto named = [&](const char* name) {
      nn::NormSpec norm = layer.attention_norm;
      norm.name = layer_prefix(i) + name;
      return norm;
    };
    layer.post_attention_norm = named("post_attention_layernorm");
    layer.mlp_norm = named("pre_feedforward_layernorm");
    layer.post_mlp_norm = named("post_feedforward_layernorm");
  }
}

void set_caps_and_scale(const JsonView& config, nn::DecoderSpec* spec) {
  spec->logit_soft_cap = config.get_optional<double>("final_logit_softcapping");
  const double scalar = config.get_or<double>("query_pre_attn_scalar", 256);
  require(scalar > 0, "[config] query_pre_attn_scalar of {} is {}, expected a positive number",
          config.what(), scalar);
  for (nn::LayerSpec& layer : spec->layers) {
    attention_of(layer).scale = 1.0 / std::sqrt(scalar);
  }
}

}  // namespace

nn::DecoderSpec build_gemma(const JsonView& config) { return gemma_decoder(config); }

nn::DecoderSpec build_gemma2(const JsonView& config) {
  nn::DecoderSpec spec = gemma_decoder(config);
  set_sandwich_norms(&spec);
  set_caps_and_scale(config, &spec);
  for (nn::LayerSpec& layer : spec.layers) {
    attention_of(layer).soft_cap = config.get_optional<double>("attn_logit_softcapping");
  }
  set_windows(config,
              sliding_layers(config, spec.layers.size(), [](size_t i) { return i % 2 == 0; }),
              &spec);
  return spec;
}

nn::DecoderSpec build_gemma3(const JsonView& config) {
  nn::DecoderSpec spec = gemma_decoder(config);
  const Sizes sizes = read_sizes(config);
  set_sandwich_norms(&spec);
  set_caps_and_scale(config, &spec);
  add_head_norms(sizes, true, &spec);
  std::vector<bool> sliding =
      sliding_layers(config, spec.layers.size(), [](size_t i) { return (i + 1) % 6 != 0; });
  if (!config.has("layer_types") && config.has("sliding_window_pattern")) {
    const auto pattern = static_cast<size_t>(positive(config, "sliding_window_pattern"));
    for (size_t i = 0; i < sliding.size(); ++i) sliding[i] = (i + 1) % pattern != 0;
  }
  set_windows(config, sliding, &spec);
  // Windows turn by a base of their own, without scaling.
  const bool by_type = config.has("rope_parameters");
  nn::RopeSpec local = nn::rope_from_config(config, sizes.head_dim, "sliding_attention", 1e6);
  const nn::RopeSpec global = nn::rope_from_config(config, sizes.head_dim, "full_attention", 1e6);
  if (!by_type) {
    local = global;
    local.type = "default";
    local.factor = 1;
    local.theta = config.get_or<double>("rope_local_base_freq", 10000);
  }
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    attention_of(spec.layers[i]).rope = sliding[i] ? local : global;
  }
  spec.name_prefixes = {{"model.", "model.language_model."}, {"model.", "language_model.model."}};
  return spec;
}

}  // namespace ttpu::models
