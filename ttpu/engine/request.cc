#include "ttpu/engine/request.h"

#include <cmath>

#include "ttpu/base/error.h"

namespace ttpu::engine {
namespace {

constexpr double kMostTemperature = 100;
constexpr double kMostRepetitionPenalty = 100;

void check_penalty(const char* name, double value) {
  require(std::isfinite(value) && value >= -2 && value <= 2,
          "[sampling] {} is {}, expected a number from -2 to 2", name, value);
}

void check_token(const char* name, int64_t token, int64_t vocab) {
  require(token >= 0 && token < vocab, "[sampling] {} has token {}, the vocabulary is [0, {})",
          name, token, vocab);
}

void check_logprobs(const char* name, int64_t value) {
  require(value >= -1 && value <= kMostLogprobs, "[sampling] {} is {}, expected 0 to {}", name,
          value, kMostLogprobs);
}

}  // namespace

void validate(const SamplingParams& params, int64_t vocab) {
  // What divides and multiplies logits must leave them finite.
  require(params.temperature >= 0 && params.temperature <= kMostTemperature,
          "[sampling] temperature is {}, expected 0 (greedy) to {}", params.temperature,
          kMostTemperature);
  require(params.top_k >= -1 && params.top_k <= INT32_MAX,
          "[sampling] top_k is {}, expected 0 (all) or more", params.top_k);
  require(params.top_p > 0 && params.top_p <= 1,
          "[sampling] top_p is {}, expected a number in (0, 1]", params.top_p);
  require(params.min_p >= 0 && params.min_p <= 1,
          "[sampling] min_p is {}, expected a number from 0 to 1", params.min_p);
  require(params.repetition_penalty >= 1 / kMostRepetitionPenalty &&
              params.repetition_penalty <= kMostRepetitionPenalty,
          "[sampling] repetition_penalty is {}, expected {} to {}", params.repetition_penalty,
          1 / kMostRepetitionPenalty, kMostRepetitionPenalty);
  check_penalty("frequency_penalty", params.frequency_penalty);
  check_penalty("presence_penalty", params.presence_penalty);
  require(params.max_tokens >= 1, "[sampling] max_tokens is {}, expected at least 1",
          params.max_tokens);
  require(params.min_tokens >= 0 && params.min_tokens <= params.max_tokens,
          "[sampling] min_tokens is {}, expected 0 to max_tokens ({})", params.min_tokens,
          params.max_tokens);
  check_logprobs("logprobs", params.logprobs);
  check_logprobs("prompt_logprobs", params.prompt_logprobs);
  require(params.logit_bias.size() <= static_cast<size_t>(kMostBiases),
          "[sampling] logit_bias has {} tokens, at most {}", params.logit_bias.size(), kMostBiases);
  for (const auto& [token, bias] : params.logit_bias) {
    check_token("logit_bias", token, vocab);
    require(!std::isnan(bias), "[sampling] logit_bias of token {} is not a number", token);
  }
  for (const int32_t token : params.stop_token_ids) check_token("stop_token_ids", token, vocab);
  for (const std::vector<int32_t>& word : params.bad_words) {
    require(!word.empty(), "[sampling] bad_words has a word without tokens");
    for (const int32_t token : word) check_token("bad_words", token, vocab);
  }
  for (const std::string& stop : params.stop) {
    require(!stop.empty(), "[sampling] a stop string is empty");
  }
}

void RequestOutput::clear() {
  request = cached_tokens = 0;
  queue_seconds = 0;
  text.clear();
  tokens.clear();
  logprobs.clear();
  prompt_logprobs.clear();
  finished.reset();
  error.clear();
  error_code = Code::kInternal;
  stop.clear();
}

const char* to_string(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kAborted:
      return "abort";
    case FinishReason::kError:
      return "error";
  }
  return "";
}

}  // namespace ttpu::engine
