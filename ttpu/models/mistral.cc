// Mistral: Llama with a sliding window on every layer.
#include "ttpu/models/common.h"
#include "ttpu/models/families.h"

namespace ttpu::models {

const char* const kMistralDefaults = R"(
  {"rms_norm_eps": 1e-6, "max_position_embeddings": 131072, "num_key_value_heads": 8,
  "sliding_window": 4096})";

nn::DecoderSpec build_mistral(const JsonView& config) {
  nn::DecoderSpec spec = llama_decoder(config);
  slide_everywhere(config, &spec);
  return spec;
}

}  // namespace ttpu::models
