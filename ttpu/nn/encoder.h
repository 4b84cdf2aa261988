// A text encoder (BERT and what is built like it) as data, and the function that builds it: every
// token sees the whole sequence, and norms stand behind the residual sums.
#pragma once

#include <string>
#include <vector>

#include "ttpu/nn/attention.h"

namespace ttpu::nn {

struct EncoderLayerSpec {
  AttentionSpec attention;
  NormSpec attention_norm;  // of the sum
  MlpSpec mlp;
  NormSpec mlp_norm;  // of the sum
};

struct EncoderSpec {
  int64_t vocab = 0;
  int64_t hidden = 0;
  int64_t max_positions = 0;       // tokens of a sequence
  std::string embedding;           // tensor [vocab, hidden]
  std::string position_embedding;  // tensor [max_positions + position_offset, hidden]
  int64_t position_offset = 0;     // row of the first token
  std::string type_embedding;      // tensor [types, hidden], of which the first row is used
  int64_t types = 0;
  NormSpec embedding_norm;
  std::vector<EncoderLayerSpec> layers;
  std::vector<std::pair<std::string, std::string>> name_prefixes = {};  // as DecoderSpec's
};

// The last hidden states [tokens, hidden]. `cache`: [pages, page_size, 2 * heads, head_dim],
// scratch that every layer writes anew; it is updated.
LayerResult encoder(Context& context, const EncoderSpec& spec, const StepInputs& inputs,
                    ir::Value cache);

}  // namespace ttpu::nn
