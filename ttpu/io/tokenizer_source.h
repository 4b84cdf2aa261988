// What a tokenizer is made from: a model's files hold it as one text or as lists.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace ttpu::io {

// Texts end to end: a vocabulary has hundreds of thousands of them.
struct Texts {
  std::string text;
  std::vector<uint32_t> ends;  // where each ends in `text`

  void reserve(size_t count, size_t bytes);
  // Throws kInvalidArgument beyond 4 GB.
  void add(std::string_view one);
  size_t size() const { return ends.size(); }
  std::string_view operator[](size_t index) const;
};

// How a byte-pair tokenizer chooses its merges.
enum class MergeRule {
  kListed,   // by `merges`, the first one first
  kScored,   // any pair that makes a token: that of the best score first, as SentencePiece does
  kInOrder,  // any pair that makes a token: the token of the lowest id first
};

struct TokenizerSource {
  // The text of a tokenizer.json; empty when the model has none. Where `tokens` is not empty, its
  // model is BPE and lacks `vocab` and `merges`: they are the lists that follow.
  std::string json;
  Texts tokens;
  MergeRule rule = MergeRule::kListed;
  Texts merges;               // "left right", when listed
  std::vector<float> scores;  // one a token, when scored
};

}  // namespace ttpu::io
