// OLMo 2: no norms before, but behind both halves of a layer, and over all of q and k.
#include "ttpu/models/common.h"
#include "ttpu/models/families.h"

namespace ttpu::models {

const char* const kOlmo2Defaults = R"(
  {"rms_norm_eps": 1e-5, "max_position_embeddings": 2048})";

nn::DecoderSpec build_olmo2(const JsonView& config) {
  nn::DecoderSpec spec = llama_decoder(config);
  const Sizes sizes = read_sizes(config);
  const auto rms = [&](const std::string& name, int64_t dim) {
    nn::NormSpec norm{nn::NormKind::kRms, name, dim, sizes.epsilon};
    norm.scaled_in_f32 = true;
    return norm;
  };
  spec.final_norm = rms("model.norm", sizes.hidden);
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    const std::string prefix = layer_prefix(i);
    nn::LayerSpec& layer = spec.layers[i];
    layer.attention_norm = {};
    layer.mlp_norm = {};
    layer.post_attention_norm = rms(prefix + "post_attention_layernorm", sizes.hidden);
    layer.post_mlp_norm = rms(prefix + "post_feedforward_layernorm", sizes.hidden);
    nn::AttentionSpec& attention = attention_of(layer);
    attention.q_norm = rms(prefix + "self_attn.q_norm", sizes.heads * sizes.head_dim);
    attention.k_norm = rms(prefix + "self_attn.k_norm", sizes.kv_heads * sizes.head_dim);
    attention.norm_whole = true;
  }
  return spec;
}

}  // namespace ttpu::models
