// Qwen3: Qwen2 without the biases and with norms on each head of q and k.
#include "ttpu/models/common.h"
#include "ttpu/models/families.h"

namespace ttpu::models {

const char* const kQwen3Defaults = R"(
  {"rms_norm_eps": 1e-6, "max_position_embeddings": 32768, "num_key_value_heads": 32,
  "head_dim": 128, "use_sliding_window": false, "sliding_window": 4096, "max_window_layers": 28})";

nn::DecoderSpec build_qwen3(const JsonView& config) {
  nn::DecoderSpec spec = llama_decoder(config);
  add_head_norms(read_sizes(config), false, &spec);
  set_windows_when_used(
      config, [](int64_t i, int64_t first) { return i >= first; }, &spec);
  return spec;
}

}  // namespace ttpu::models
