// SmolLM3: Llama where some layers have no positions (NoPE).
#include "ttpu/base/error.h"
#include "ttpu/models/common.h"
#include "ttpu/models/families.h"

namespace ttpu::models {

const char* const kSmollm3Defaults = R"(
  {"rms_norm_eps": 1e-6, "max_position_embeddings": 32768, "num_key_value_heads": 4,
  "rope_theta": 2000000, "tie_word_embeddings": true, "use_sliding_window": false,
  "no_rope_layer_interval": 4})";

nn::DecoderSpec build_smollm3(const JsonView& config) {
  nn::DecoderSpec spec = llama_decoder(config);
  const int64_t interval = positive(config, "no_rope_layer_interval");
  const auto listed = config.get_or<std::vector<int64_t>>("no_rope_layers", {});
  require(listed.empty() || listed.size() == spec.layers.size(),
          "[config] {} has {} no_rope_layers for {} layers", config.what(), listed.size(),
          spec.layers.size());
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    const bool rotary =
        listed.empty() ? (static_cast<int64_t>(i) + 1) % interval != 0 : listed[i] != 0;
    if (!rotary) attention_of(spec.layers[i]).rope.reset();
  }
  if (!config.get_or<bool>("use_sliding_window", false)) return spec;
  std::vector<bool> sliding =
      sliding_layers(config, spec.layers.size(), [](size_t) { return false; });
  for (size_t i = 0; i < sliding.size() && !config.has("layer_types"); ++i) {
    sliding[i] = !attention_of(spec.layers[i]).rope;
  }
  set_windows(config, sliding, &spec);
  return spec;
}

}  // namespace ttpu::models
