// Qwen2 and Qwen2.5: Llama with biases on q, k and v, and windows on the upper layers when asked.
#include "ttpu/models/common.h"
#include "ttpu/models/families.h"

namespace ttpu::models {

nn::DecoderSpec build_qwen2(const JsonView& config) {
  nn::DecoderSpec spec = llama_decoder(config);
  for (nn::LayerSpec& layer : spec.layers) {
    attention_of(layer).qkv_bias = true;
    attention_of(layer).o_bias = false;
  }
  if (!config.get_or<bool>("use_sliding_window", false)) return spec;
  std::vector<bool> sliding =
      sliding_layers(config, spec.layers.size(), [](size_t) { return true; });
  if (!config.has("layer_types")) {
    const auto first = static_cast<size_t>(config.get_or<int64_t>("max_window_layers", 28));
    for (size_t i = 0; i < sliding.size(); ++i) sliding[i] = i >= first;
  }
  set_windows(config, sliding, &spec);
  return spec;
}

}  // namespace ttpu::models
