// SmolLM3: Llama where some layers have no positions (NoPE).
#include "ttpu/base/error.h"
#include "ttpu/models/common.h"
#include "ttpu/models/families.h"

namespace ttpu::models {

nn::DecoderSpec build_smollm3(const JsonView& config) {
  nn::DecoderSpec spec = llama_decoder(config, true);
  const int64_t interval = positive_or(config, "no_rope_layer_interval", 4);
  const auto listed = config.get_or<std::vector<int64_t>>("no_rope_layers", {});
  require(listed.empty() || listed.size() == spec.layers.size(),
          "[config] {} has {} no_rope_layers for {} layers", config.what(), listed.size(),
          spec.layers.size());
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    const bool rotary =
        listed.empty() ? (static_cast<int64_t>(i) + 1) % interval != 0 : listed[i] != 0;
    if (!rotary) attention_of(spec.layers[i]).rope.reset();
  }
  if (config.get_or<bool>("use_sliding_window", false)) {
    set_windows(config, sliding_layers(config, spec.layers.size(), [](size_t) { return false; }),
                &spec);
  }
  return spec;
}

}  // namespace ttpu::models
