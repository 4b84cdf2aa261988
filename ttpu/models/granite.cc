// Granite: Llama with four multipliers.
#include "ttpu/base/error.h"
#include "ttpu/models/common.h"
#include "ttpu/models/families.h"

namespace ttpu::models {

const char* const kGraniteDefaults = R"(
  {"rms_norm_eps": 1e-6, "max_position_embeddings": 2048})";

nn::DecoderSpec build_granite(const JsonView& config) {
  nn::DecoderSpec spec = llama_decoder(config);
  const double logits_scaling = config.get_or<double>("logits_scaling", 1.0);
  require(logits_scaling > 0, "[config] logits_scaling of {} is {}, expected a positive number",
          config.what(), logits_scaling);
  spec.embedding_scale = config.get_or<double>("embedding_multiplier", 1.0);
  spec.logit_scale = 1.0 / logits_scaling;
  for (nn::LayerSpec& layer : spec.layers) {
    layer.residual_scale = config.get_or<double>("residual_multiplier", 1.0);
    attention_of(layer).scale = config.get_or<double>("attention_multiplier", 1.0);
  }
  return spec;
}

}  // namespace ttpu::models
