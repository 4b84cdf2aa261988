// Qwen3: Qwen2 without the biases and with norms on each head of q and k.
#include "ttpu/models/common.h"
#include "ttpu/models/families.h"

namespace ttpu::models {

nn::DecoderSpec build_qwen3(const JsonView& config) {
  nn::DecoderSpec spec = build_qwen2(config);
  const bool bias = config.get_or<bool>("attention_bias", false);
  for (nn::LayerSpec& layer : spec.layers) {
    attention_of(layer).qkv_bias = bias;
    attention_of(layer).o_bias = bias;
  }
  add_head_norms(read_sizes(config), false, &spec);
  return spec;
}

}  // namespace ttpu::models
