// Qwen2 and Qwen2.5: Llama with biases on q, k and v, and windows on the upper layers when asked.
#include "ttpu/models/common.h"
#include "ttpu/models/families.h"

namespace ttpu::models {

const char* const kQwen2Defaults = R"(
  {"rms_norm_eps": 1e-6, "max_position_embeddings": 32768, "num_key_value_heads": 32,
  "use_sliding_window": false, "sliding_window": 4096, "max_window_layers": 28})";

nn::DecoderSpec build_qwen2(const JsonView& config) {
  nn::DecoderSpec spec = llama_decoder(config);
  for (nn::LayerSpec& layer : spec.layers) {
    attention_of(layer).qkv_bias = true;
    attention_of(layer).o_bias = false;
  }
  set_windows_when_used(
      config, [](int64_t i, int64_t first) { return i >= first; }, &spec);
  return spec;
}

}  // namespace ttpu::models
