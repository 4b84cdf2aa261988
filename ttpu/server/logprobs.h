// Log probabilities in the formats of the APIs.
#pragma once

#include <vector>

#include "ttpu/base/json.h"
#include "ttpu/engine/request.h"
#include "ttpu/text/tokenizer.h"

namespace ttpu::server {

// /v1/chat/completions: {"content": [{token, logprob, bytes, top_logprobs}]}
Json chat_logprobs(const std::vector<engine::TokenLogprobs>& steps,
                   const text::Tokenizer& tokenizer);

// /v1/completions: {tokens, token_logprobs, top_logprobs, text_offset}. `offset` counts characters
// and moves on.
class CompletionLogprobs {
 public:
  CompletionLogprobs(const text::Tokenizer& tokenizer, size_t* offset);
  // A token that nothing is known of: the first one of a prompt.
  void add(int32_t token);
  void add(const engine::TokenLogprobs& step);
  Json json() const { return json_; }

 private:
  const text::Tokenizer& tokenizer_;
  size_t* offset_;
  Json json_;
};

// vLLM's `prompt_logprobs`: null, then an object a token, by the numbers of tokens.
Json prompt_logprobs(const std::vector<engine::TokenLogprobs>& steps,
                     const text::Tokenizer& tokenizer);

}  // namespace ttpu::server
