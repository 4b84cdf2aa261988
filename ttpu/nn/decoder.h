// A decoder-only language model as data, and the function that builds it. A family of ttpu/models
// fills this in from config.json.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "ttpu/nn/attention.h"
#include "ttpu/nn/moe.h"

namespace ttpu::nn {

struct LayerSpec {
  NormSpec attention_norm;       // before the attention
  NormSpec post_attention_norm;  // on its output, before the residual is added
  NormSpec mlp_norm;             // before the MLP
  NormSpec post_mlp_norm;        // on its output
  std::variant<AttentionSpec, MlaSpec> attention;
  std::variant<MlpSpec, MoeSpec> mlp;
  bool parallel = false;  // attention and MLP both read the layer's input
  double residual_scale = 1;
};

struct DecoderSpec {
  int64_t vocab = 0;
  int64_t hidden = 0;
  int64_t max_positions = 0;
  std::string embedding;           // tensor name
  double embedding_scale = 1;      // rounded to the compute type, as transformers does
  std::string position_embedding;  // tensor [max_positions, hidden], empty: none
  std::vector<LayerSpec> layers;
  NormSpec final_norm;
  LinearSpec head;  // empty name: tied to the embedding
  double logit_scale = 1;
  std::optional<double> logit_soft_cap;
  // Prefixes under which a checkpoint may hold these names, tried in turn: first is replaced by
  // second.
  std::vector<std::pair<std::string, std::string>> name_prefixes = {};
};

struct DecoderResult {
  ir::Value own_logits;           // [rows, the device's part of the vocabulary] f32
  std::vector<ir::Value> caches;  // as many as were given
};

// How a program goes through the layers. Scanned: a loop whose weights are stacked [layers, ...]
// and whose one cache holds the pages of all layers, layer i's page p at i * pages + p. Layers that
// repeat in a pattern (windows on every second) are scanned by the pattern.
enum class Layers { kUnrolled, kScanned };

// How many layers a device has: with a pipeline, those of one stage. Throws kInvalidArgument where
// stages would have different numbers of them.
size_t own_layers(const DecoderSpec& spec, const parallel::Layout& layout);

// rows: [rows] i32, the tokens whose logits are wanted. caches: one for each of own_layers(), or
// one for all when scanned. Throws kUnimplemented when layers do not repeat.
DecoderResult decoder(Context& context, const DecoderSpec& spec, const StepInputs& inputs,
                      const std::vector<ir::Value>& caches, ir::Value rows,
                      Layers layers = Layers::kUnrolled);

// Of logits that are divided along the vocabulary: [rows, vocab] on every device; and the device's
// part of the rows, [rows / parts, vocab], for which a `parts`-th of the bytes is sent. Rows must
// divide.
ir::Value all_logits(const Context& context, const DecoderSpec& spec, ir::Value own);
ir::Value own_rows_of_logits(const Context& context, const DecoderSpec& spec, ir::Value own);

// The dimensions of a layer's cache of a type after [pages, page_size].
Dims cache_dims(const LayerSpec& layer, DType cache_dtype);
parallel::Placement cache_placement(const parallel::Layout& layout, const LayerSpec& layer);
// Whether that is a cache of latents (MLA), one row for all heads.
inline bool is_latent(const LayerSpec& layer) {
  return std::holds_alternative<MlaSpec>(layer.attention);
}

}  // namespace ttpu::nn
