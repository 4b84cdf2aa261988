// Seed-OSS: Llama with biases on q, k and v, and a switch of its own for the one behind attention.
#include "ttpu/models/common.h"
#include "ttpu/models/families.h"

namespace ttpu::models {

const char* const kSeedOssDefaults = R"(
  {"rms_norm_eps": 1e-6, "max_position_embeddings": 524288, "num_key_value_heads": 8,
  "head_dim": 128, "attention_bias": true, "attention_out_bias": false})";

nn::DecoderSpec build_seed_oss(const JsonView& config) {
  nn::DecoderSpec spec = llama_decoder(config);
  for (nn::LayerSpec& layer : spec.layers) {
    attention_of(layer).o_bias = config.get<bool>("attention_out_bias");
  }
  return spec;
}

}  // namespace ttpu::models
