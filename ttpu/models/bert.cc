// BERT (arXiv:1810.04805) and RoBERTa (arXiv:1907.11692), as encoders of text.
#include <cmath>

#include "ttpu/base/error.h"
#include "ttpu/models/common.h"
#include "ttpu/models/encoders.h"

namespace ttpu::models {
namespace {

nn::NormSpec layer_norm(std::string name, const JsonView& config, int64_t hidden) {
  nn::NormSpec norm;
  norm.kind = nn::NormKind::kLayer;
  norm.name = std::move(name);
  norm.dim = hidden;
  norm.epsilon = config.get_or<double>("layer_norm_eps", 1e-12);
  norm.bias = true;
  return norm;
}

nn::EncoderLayerSpec layer_of(const JsonView& config, size_t index, int64_t hidden) {
  const std::string prefix = fmt::format("encoder.layer.{}.", index);
  nn::EncoderLayerSpec layer;
  nn::AttentionSpec& attention = layer.attention;
  attention.q = prefix + "attention.self.query";
  attention.k = prefix + "attention.self.key";
  attention.v = prefix + "attention.self.value";
  attention.o = prefix + "attention.output.dense";
  attention.hidden = hidden;
  attention.heads = attention.kv_heads = positive(config, "num_attention_heads");
  require(hidden % attention.heads == 0,
          "[config] {} has hidden_size {} and num_attention_heads {}; the first must be a multiple",
          config.what(), hidden, attention.heads);
  attention.head_dim = hidden / attention.heads;
  attention.qkv_bias = attention.o_bias = true;
  attention.causal = false;
  attention.scale = 1 / std::sqrt(static_cast<double>(attention.head_dim));
  layer.attention_norm = layer_norm(prefix + "attention.output.LayerNorm", config, hidden);
  layer.mlp.up = prefix + "intermediate.dense";
  layer.mlp.down = prefix + "output.dense";
  layer.mlp.hidden = hidden;
  layer.mlp.intermediate = positive(config, "intermediate_size");
  layer.mlp.activation =
      nn::activation_from_config(config.get_or<std::string>("hidden_act", "gelu"));
  layer.mlp.bias = true;
  layer.mlp_norm = layer_norm(prefix + "output.LayerNorm", config, hidden);
  return layer;
}

nn::EncoderSpec build(const JsonView& config, int64_t position_offset) {
  const std::string positions = config.get_or<std::string>("position_embedding_type", "absolute");
  require(positions == "absolute",
          "[config] {} has position_embedding_type '{}', expected 'absolute'", config.what(),
          positions);
  require(!config.get_or<bool>("is_decoder", false),
          "[config] {} is of a decoder (is_decoder); only encoders are built", config.what());
  nn::EncoderSpec spec;
  spec.vocab = positive(config, "vocab_size");
  spec.hidden = positive(config, "hidden_size");
  spec.position_offset = position_offset;
  spec.max_positions = positive(config, "max_position_embeddings") - position_offset;
  require(spec.max_positions > 0, "[config] {} has max_position_embeddings {}, expected above {}",
          config.what(), spec.max_positions + position_offset, position_offset);
  spec.embedding = "embeddings.word_embeddings.weight";
  spec.position_embedding = "embeddings.position_embeddings.weight";
  spec.type_embedding = "embeddings.token_type_embeddings.weight";
  spec.types = positive_or(config, "type_vocab_size", 2);
  spec.embedding_norm = layer_norm("embeddings.LayerNorm", config, spec.hidden);
  const int64_t layers = positive(config, "num_hidden_layers");
  for (int64_t i = 0; i < layers; ++i) {
    spec.layers.push_back(layer_of(config, static_cast<size_t>(i), spec.hidden));
  }
  return spec;
}

}  // namespace

nn::EncoderSpec build_bert(const JsonView& config) {
  nn::EncoderSpec spec = build(config, 0);
  spec.name_prefixes = {{"", "bert."}};
  return spec;
}

nn::EncoderSpec build_roberta(const JsonView& config) {
  // Positions count from the one behind the padding token's.
  nn::EncoderSpec spec = build(config, config.get_or<int64_t>("pad_token_id", 1) + 1);
  spec.name_prefixes = {{"", "roberta."}};
  return spec;
}

}  // namespace ttpu::models
