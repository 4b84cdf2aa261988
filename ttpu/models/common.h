// What most families share: the sizes of a config and the Llama layer that they vary.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "ttpu/base/json.h"
#include "ttpu/nn/decoder.h"

namespace ttpu::models {

struct Sizes {
  int64_t vocab = 0;
  int64_t hidden = 0;
  int64_t intermediate = 0;
  int64_t layers = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t max_positions = 0;
  double epsilon = 1e-6;
};

// A field that counts something: from 1 to 2^31. Throws with field and value.
int64_t positive(const JsonView& config, const char* field);
int64_t positive_or(const JsonView& config, const char* field, int64_t fallback);

// hidden_size, num_hidden_layers, ... with the checks that keep later arithmetic sane.
Sizes read_sizes(const JsonView& config);

// Llama as its config has it: RMS norms, rotary grouped-query attention, gated MLP. The base of
// most families, which change the result. Refuses a partial_rotary_factor unless `partial_rotary`
// (transformers ignores it in most families).
nn::DecoderSpec llama_decoder(const JsonView& config, bool partial_rotary = false);

nn::AttentionSpec& attention_of(nn::LayerSpec& layer);
nn::MlpSpec& mlp_of(nn::LayerSpec& layer);
// "model.layers.3."
std::string layer_prefix(size_t index);

// For each layer whether its attention slides: from `layer_types` when the config has it, else by
// `fallback(i)`.
std::vector<bool> sliding_layers(const JsonView& config, size_t layers, bool (*fallback)(size_t));
// Sets `sliding_window` on these layers; does nothing when the config has no window.
void set_windows(const JsonView& config, const std::vector<bool>& sliding, nn::DecoderSpec* spec);

// Qwen: only with `use_sliding_window`, and unless `layer_types` says which, on the layers i with
// slides(i, max_window_layers).
void set_windows_when_used(const JsonView& config, bool (*slides)(int64_t, int64_t),
                           nn::DecoderSpec* spec);
// The same for families whose layers all slide; refuses `layer_types` that say otherwise.
void slide_everywhere(const JsonView& config, nn::DecoderSpec* spec);

// Per-head RMS norms of q and k, named q_norm and k_norm.
void add_head_norms(const Sizes& sizes, bool one_plus, nn::DecoderSpec* spec);

// `num_experts` or `num_local_experts`: transformers reads either and saves the second.
int64_t expert_count(const JsonView& config);

// Declares gate, up and down of moe.experts experts, whose tensors are prefix + index + "." + name
// + ".weight"; names: of gate, up and down.
void declare_experts(const std::string& prefix, const std::array<const char*, 3>& names,
                     nn::MoeSpec* moe);
inline constexpr std::array<const char*, 3> kExpertProjections = {"gate_proj", "up_proj",
                                                                  "down_proj"};

}  // namespace ttpu::models
