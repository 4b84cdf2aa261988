// Gemma 1, 2 and 3 (text): norms that hold their weight less one, scaled embeddings, GELU; from 2
// on norms around both halves of a layer, soft caps and alternating windows; from 3 on head norms
// and two rotary bases.
#include <cmath>

#include "ttpu/base/error.h"
#include "ttpu/models/common.h"
#include "ttpu/models/families.h"

namespace ttpu::models {
namespace {

nn::DecoderSpec gemma_decoder(const JsonView& config, kernels::Activation activation) {
  nn::DecoderSpec spec = llama_decoder(config);
  spec.embedding_scale = std::sqrt(static_cast<double>(spec.hidden));
  spec.final_norm.one_plus = true;
  for (nn::LayerSpec& layer : spec.layers) {
    layer.attention_norm.one_plus = true;
    layer.mlp_norm.one_plus = true;
    mlp_of(layer).activation = activation;
  }
  return spec;
}

nn::DecoderSpec gemma_decoder(const JsonView& config) {
  return gemma_decoder(config,
                       nn::activation_from_config(config.get<std::string>("hidden_activation")));
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
  const double scalar = config.get<double>("query_pre_attn_scalar");
  require(scalar > 0, "[config] query_pre_attn_scalar of {} is {}, expected a positive number",
          config.what(), scalar);
  for (nn::LayerSpec& layer : spec->layers) {
    attention_of(layer).scale = 1.0 / std::sqrt(scalar);
  }
}

// The rotary settings of one type of layer, as a config of its own.
nn::RopeSpec rope_of(const JsonView& config, const Sizes& sizes, const char* layer_type,
                     const char* theta_field) {
  Json own = {{"rope_theta", config.get<double>(theta_field)},
              {"max_position_embeddings", sizes.max_positions}};
  if (config.has("rope_parameters")) {
    const JsonView by_type = config.child("rope_parameters");
    require(by_type.has("full_attention") || by_type.has("sliding_attention"),
            "[config] rope_parameters of {} must have entries full_attention and "
            "sliding_attention, since Gemma 3 turns the two by different bases",
            config.what());
    if (by_type.has(layer_type)) own["rope_parameters"] = by_type.json().at(layer_type);
  }
  // The old form scales full attention alone.
  if (config.has("rope_scaling") && std::string_view(layer_type) == "full_attention") {
    own["rope_scaling"] = config.json().at("rope_scaling");
  }
  return nn::rope_from_config(JsonView(own, config.what()), sizes.head_dim);
}

// Windows turn by a base of their own.
void set_ropes(const JsonView& config, const Sizes& sizes, const std::vector<bool>& sliding,
               nn::DecoderSpec* spec) {
  const nn::RopeSpec local = rope_of(config, sizes, "sliding_attention", "rope_local_base_freq");
  const nn::RopeSpec global = rope_of(config, sizes, "full_attention", "rope_theta");
  for (size_t i = 0; i < spec->layers.size(); ++i) {
    attention_of(spec->layers[i]).rope = sliding[i] ? local : global;
  }
}

}  // namespace

const char* const kGemmaDefaults = R"(
  {"rms_norm_eps": 1e-6, "max_position_embeddings": 8192, "num_key_value_heads": 16, "head_dim": 256,
  "hidden_act": "gelu_pytorch_tanh", "tie_word_embeddings": true})";

const char* const kGemma2Defaults = R"(
  {"rms_norm_eps": 1e-6, "max_position_embeddings": 8192, "num_key_value_heads": 4, "head_dim": 256,
  "hidden_activation": "gelu_pytorch_tanh", "tie_word_embeddings": true,
  "query_pre_attn_scalar": 256, "sliding_window": 4096, "final_logit_softcapping": 30.0,
  "attn_logit_softcapping": 50.0})";

const char* const kGemma3Defaults = R"(
  {"vocab_size": 262208, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
  "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "rms_norm_eps": 1e-6,
  "max_position_embeddings": 131072, "hidden_activation": "gelu_pytorch_tanh",
  "tie_word_embeddings": true, "query_pre_attn_scalar": 256, "sliding_window": 4096,
  "rope_theta": 1000000, "rope_local_base_freq": 10000, "sliding_window_pattern": 6})";

nn::DecoderSpec build_gemma(const JsonView& config) {
  const auto named = config.get<std::string>("hidden_act");
  // The first checkpoints say "gelu" and mean its tanh form.
  return gemma_decoder(
      config, named == "gelu" ? kernels::Activation::kGeluTanh : nn::activation_from_config(named));
}

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
      sliding_layers(config, spec.layers.size(), [](size_t) { return true; });
  const auto pattern = static_cast<size_t>(positive(config, "sliding_window_pattern"));
  for (size_t i = 0; i < sliding.size() && !config.has("layer_types"); ++i) {
    sliding[i] = (i + 1) % pattern != 0;
  }
  set_windows(config, sliding, &spec);
  set_ropes(config, sizes, sliding, &spec);
  spec.name_prefixes = {{"model.", "model.language_model."}, {"model.", "language_model.model."}};
  return spec;
}

}  // namespace ttpu::models
