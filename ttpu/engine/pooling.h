// How the hidden states of a text's tokens become its one vector, as sentence-transformers says it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

#include "ttpu/ir/value.h"

namespace ttpu::engine {

enum class Pooling { kMean, kCls, kLast };

struct PoolingSpec {
  Pooling pooling = Pooling::kMean;
  bool normalize = false;                  // vectors of length 1
  std::optional<int64_t> max_tokens = {};  // of a text
};

// Whether the folder is a model of sentence-transformers: modules.json names a pooling module.
bool has_pooling(const std::filesystem::path& folder);

// Reads modules.json, the pooling module's config.json (1_Pooling without modules.json) and
// sentence_bert_config.json; what they do not say is `fallback`'s. Throws kUnimplemented for
// modules and poolings that are not computed here, naming the file.
PoolingSpec read_pooling(const std::filesystem::path& folder, const PoolingSpec& fallback);

// hidden [tokens, hidden] f32, sequence s having the rows [begins[s], ends[s]), to [sequences,
// hidden]. Sequences without rows get numbers that mean nothing.
ir::Value pool(const PoolingSpec& spec, ir::Value hidden, ir::Value begins, ir::Value ends);

}  // namespace ttpu::engine
