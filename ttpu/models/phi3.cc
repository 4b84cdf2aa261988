// Phi-3 and Phi-4-mini: Llama with fused matrices, partial rotary and longrope.
#include "ttpu/models/common.h"
#include "ttpu/models/families.h"

namespace ttpu::models {

nn::DecoderSpec build_phi3(const JsonView& config) {
  nn::DecoderSpec spec = llama_decoder(config);
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    attention_of(spec.layers[i]).qkv = layer_prefix(i) + "self_attn.qkv_proj";
    nn::MlpSpec& mlp = mlp_of(spec.layers[i]);
    mlp.up = layer_prefix(i) + "mlp.gate_up_proj";
    mlp.fused = true;
  }
  set_windows(config, sliding_layers(config, spec.layers.size(), [](size_t) { return true; }),
              &spec);
  return spec;
}

}  // namespace ttpu::models
