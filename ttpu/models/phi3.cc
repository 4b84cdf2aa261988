// Phi-3 and Phi-4-mini: Llama with fused matrices, partial rotary and longrope.
#include "ttpu/base/error.h"
#include "ttpu/models/common.h"
#include "ttpu/models/families.h"

namespace ttpu::models {

const char* const kPhi3Defaults = R"(
  {"rms_norm_eps": 1e-5, "max_position_embeddings": 4096, "original_max_position_embeddings": 4096})";

nn::DecoderSpec build_phi3(const JsonView& config) {
  nn::DecoderSpec spec = llama_decoder(config, true);
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    nn::AttentionSpec& attention = attention_of(spec.layers[i]);
    attention.qkv = layer_prefix(i) + "self_attn.qkv_proj";
    if (attention.rope->type == "yarn") attention.rope->type = "longrope";  // its first name
    require(attention.rope->type == "longrope" || attention.rope->type == "default",
            "[config] rope_type '{}' in {}; Phi-3 has default and longrope", attention.rope->type,
            config.what());
    nn::MlpSpec& mlp = mlp_of(spec.layers[i]);
    mlp.up = layer_prefix(i) + "mlp.gate_up_proj";
    mlp.fused = true;
  }
  slide_everywhere(config, &spec);
  return spec;
}

}  // namespace ttpu::models
