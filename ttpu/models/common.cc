#include "ttpu/models/common.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "ttpu/base/error.h"

namespace ttpu::models {

int64_t positive(const JsonView& config, const char* field) {
  const int64_t value = config.get<int64_t>(field);
  require(value >= 1 && value < (int64_t{1} << 31),
          "[config] field '{}' of {} is {}, expected a positive number below 2^31", field,
          config.what(), value);
  return value;
}

int64_t positive_or(const JsonView& config, const char* field, int64_t fallback) {
  return config.has(field) ? positive(config, field) : fallback;
}

Sizes read_sizes(const JsonView& config) {
  Sizes sizes;
  sizes.vocab = positive(config, "vocab_size");
  sizes.hidden = positive(config, "hidden_size");
  sizes.intermediate = positive(config, "intermediate_size");
  sizes.layers = positive(config, "num_hidden_layers");
  sizes.heads = positive(config, "num_attention_heads");
  sizes.kv_heads = positive_or(config, "num_key_value_heads", sizes.heads);
  sizes.head_dim = positive_or(config, "head_dim", sizes.hidden / sizes.heads);
  sizes.max_positions = positive(config, "max_position_embeddings");
  sizes.epsilon = config.get_or<double>("rms_norm_eps", 1e-6);
  require(sizes.layers <= 4096, "[config] {} has {} layers; at most 4096 are expected",
          config.what(), sizes.layers);
  require(sizes.heads % sizes.kv_heads == 0,
          "[config] {} has {} attention heads, which is no multiple of its {} key-value heads",
          config.what(), sizes.heads, sizes.kv_heads);
  require(sizes.head_dim > 0 && std::isfinite(sizes.epsilon) && sizes.epsilon >= 0,
          "[config] {}: head_dim {} and rms_norm_eps {}", config.what(), sizes.head_dim,
          sizes.epsilon);
  return sizes;
}

std::string layer_prefix(size_t index) { return fmt::format("model.layers.{}.", index); }

nn::AttentionSpec& attention_of(nn::LayerSpec& layer) {
  return std::get<nn::AttentionSpec>(layer.attention);
}
nn::MlpSpec& mlp_of(nn::LayerSpec& layer) { return std::get<nn::MlpSpec>(layer.mlp); }

nn::DecoderSpec llama_decoder(const JsonView& config, bool partial_rotary) {
  const Sizes sizes = read_sizes(config);
  const bool attention_bias = config.get_or<bool>("attention_bias", false);
  const nn::RopeSpec rope = nn::rope_from_config(config, sizes.head_dim);
  require(partial_rotary || rope.dim == sizes.head_dim,
          "[config] {} turns {} of a head's {} dimensions; models of this family turn all. Set "
          "partial_rotary_factor to 1",
          config.what(), rope.dim, sizes.head_dim);
  const kernels::Activation activation =
      nn::activation_from_config(config.get_or<std::string>("hidden_act", "silu"));
  const auto rms = [&](const std::string& name) {
    return nn::NormSpec{nn::NormKind::kRms, name, sizes.hidden, sizes.epsilon};
  };
  nn::DecoderSpec spec;
  spec.vocab = sizes.vocab;
  spec.hidden = sizes.hidden;
  spec.max_positions = sizes.max_positions;
  if (rope.type == "dynamic") {  // the config has the length before scaling
    spec.max_positions =
        static_cast<int64_t>(static_cast<double>(sizes.max_positions) * rope.factor);
  }
  spec.embedding = "model.embed_tokens.weight";
  spec.final_norm = rms("model.norm");
  if (!config.get_or<bool>("tie_word_embeddings", false)) {
    spec.head = {"lm_head", sizes.hidden, sizes.vocab, false, {"vocab", "embed"}};
  }
  for (size_t i = 0; i < static_cast<size_t>(sizes.layers); ++i) {
    const std::string prefix = layer_prefix(i);
    nn::AttentionSpec attention;
    attention.q = prefix + "self_attn.q_proj";
    attention.k = prefix + "self_attn.k_proj";
    attention.v = prefix + "self_attn.v_proj";
    attention.o = prefix + "self_attn.o_proj";
    attention.hidden = sizes.hidden;
    attention.heads = sizes.heads;
    attention.kv_heads = sizes.kv_heads;
    attention.head_dim = sizes.head_dim;
    attention.qkv_bias = attention_bias;
    attention.o_bias = attention_bias;
    attention.rope = rope;
    attention.scale = 1.0 / std::sqrt(static_cast<double>(sizes.head_dim));
    nn::MlpSpec mlp;
    mlp.gate = prefix + "mlp.gate_proj";
    mlp.up = prefix + "mlp.up_proj";
    mlp.down = prefix + "mlp.down_proj";
    mlp.hidden = sizes.hidden;
    mlp.intermediate = sizes.intermediate;
    mlp.activation = activation;
    mlp.bias = config.get_or<bool>("mlp_bias", false);
    nn::LayerSpec layer;
    layer.attention_norm = rms(prefix + "input_layernorm");
    layer.mlp_norm = rms(prefix + "post_attention_layernorm");
    layer.attention = attention;
    layer.mlp = mlp;
    spec.layers.push_back(std::move(layer));
  }
  return spec;
}

std::vector<bool> sliding_layers(const JsonView& config, size_t layers, bool (*fallback)(size_t)) {
  std::vector<bool> sliding(layers);
  if (!config.has("layer_types")) {
    for (size_t i = 0; i < layers; ++i) sliding[i] = fallback(i);
    return sliding;
  }
  const auto types = config.get<std::vector<std::string>>("layer_types");
  require(types.size() == layers, "[config] {} has {} layer_types for {} layers", config.what(),
          types.size(), layers);
  for (size_t i = 0; i < layers; ++i) {
    require(types[i] == "sliding_attention" || types[i] == "full_attention",
            "[config] layer_types[{}] of {} is '{}', expected full_attention or sliding_attention",
            i, config.what(), types[i]);
    sliding[i] = types[i] == "sliding_attention";
  }
  return sliding;
}

void set_windows(const JsonView& config, const std::vector<bool>& sliding, nn::DecoderSpec* spec) {
  if (!config.has("sliding_window")) return;
  const int64_t window = positive(config, "sliding_window");
  for (size_t i = 0; i < spec->layers.size(); ++i) {
    if (sliding[i]) attention_of(spec->layers[i]).sliding_window = window;
  }
}

void set_windows_when_used(const JsonView& config, bool (*slides)(int64_t, int64_t),
                           nn::DecoderSpec* spec) {
  if (!config.get<bool>("use_sliding_window")) return;
  std::vector<bool> sliding =
      sliding_layers(config, spec->layers.size(), [](size_t) { return true; });
  const int64_t limit = config.get<int64_t>("max_window_layers");
  for (size_t i = 0; i < sliding.size() && !config.has("layer_types"); ++i) {
    sliding[i] = slides(static_cast<int64_t>(i), limit);
  }
  set_windows(config, sliding, spec);
}

void slide_everywhere(const JsonView& config, nn::DecoderSpec* spec) {
  const std::vector<bool> sliding =
      sliding_layers(config, spec->layers.size(), [](size_t) { return true; });
  require(!config.has("sliding_window") || std::ranges::all_of(sliding, std::identity()),
          "[config] {} has a sliding_window and layer_types without it; in models of this family "
          "every layer slides. Remove layer_types, or set sliding_window to null",
          config.what());
  set_windows(config, sliding, spec);
}

void add_head_norms(const Sizes& sizes, bool one_plus, nn::DecoderSpec* spec) {
  for (size_t i = 0; i < spec->layers.size(); ++i) {
    const std::string prefix = layer_prefix(i) + "self_attn.";
    nn::AttentionSpec& attention = attention_of(spec->layers[i]);
    attention.q_norm = {nn::NormKind::kRms, prefix + "q_norm", sizes.head_dim, sizes.epsilon,
                        one_plus};
    attention.k_norm = {nn::NormKind::kRms, prefix + "k_norm", sizes.head_dim, sizes.epsilon,
                        one_plus};
  }
}

int64_t expert_count(const JsonView& config) {
  return positive(config, config.has("num_experts") ? "num_experts" : "num_local_experts");
}

void declare_experts(const std::string& prefix, const std::array<const char*, 3>& names,
                     nn::MoeSpec* moe) {
  const auto stacked = [&](const char* name, int64_t out, int64_t in) {
    nn::WeightDecl decl;
    for (int64_t i = 0; i < moe->experts; ++i) {
      decl.names.push_back(fmt::format("{}{}.{}.weight", prefix, i, name));
    }
    decl.dims = {moe->experts, out, in};
    decl.is_matrix = true;
    return decl;
  };
  moe->gate = stacked(names[0], moe->intermediate, moe->hidden);
  moe->up = stacked(names[1], moe->intermediate, moe->hidden);
  moe->down = stacked(names[2], moe->hidden, moe->intermediate);
  moe->gate.axes = moe->up.axes = {"experts", "expert_mlp", "embed"};
  moe->down.axes = {"experts", "embed", "expert_mlp"};
}

}  // namespace ttpu::models
