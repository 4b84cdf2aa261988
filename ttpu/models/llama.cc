// Llama 1 to 3.x, and what is Llama under another name (SmolLM2).
#include "ttpu/models/common.h"
#include "ttpu/models/families.h"

namespace ttpu::models {

const char* const kLlamaDefaults = R"(
  {"rms_norm_eps": 1e-6, "max_position_embeddings": 2048})";

nn::DecoderSpec build_llama(const JsonView& config) { return llama_decoder(config); }

}  // namespace ttpu::models
