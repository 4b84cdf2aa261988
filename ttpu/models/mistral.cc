// Mistral: Llama with a sliding window on every layer.
#include "ttpu/models/common.h"
#include "ttpu/models/families.h"

namespace ttpu::models {

nn::DecoderSpec build_mistral(const JsonView& config) {
  nn::DecoderSpec spec = llama_decoder(config);
  set_windows(config, sliding_layers(config, spec.layers.size(), [](size_t) { return true; }),
              &spec);
  return spec;
}

}  // namespace ttpu::models
