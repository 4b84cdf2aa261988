// What is asked of the engine, and what it answers.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ttpu/base/error.h"

namespace ttpu::text {
class Grammar;
}

namespace ttpu::engine {

inline constexpr int64_t kMostLogprobs = 20;  // of the likeliest tokens, for each token
inline constexpr int64_t kMostBiases = 128;   // tokens whose logits a request may change at once

// What the answer must be, with vLLM's names: one of these.
struct StructuredOutputsParams {
  std::optional<std::string> json = {};     // a JSON schema, as text
  std::optional<std::string> regex = {};    // the whole answer matches it
  std::vector<std::string> choice = {};     // the answer is one of them
  std::optional<std::string> grammar = {};  // in Lark's notation
  bool json_object = false;                 // any JSON object
};

// With vLLM's names and meanings.
struct SamplingParams {
  double temperature = 0;  // 0 is greedy
  int64_t top_k = 0;       // 0: all
  double top_p = 1;
  double min_p = 0;
  double repetition_penalty = 1;  // over prompt and output
  double frequency_penalty = 0;   // over the output
  double presence_penalty = 0;
  std::vector<std::pair<int32_t, float>> logit_bias = {};
  std::vector<std::vector<int32_t>> bad_words = {};  // sequences of tokens that must not come
  uint64_t seed = 0;
  int64_t max_tokens = 256;
  int64_t min_tokens = 0;                    // before them no end token is sampled
  std::vector<int32_t> stop_token_ids = {};  // end the answer, besides the model's own
  std::vector<std::string> stop = {};        // the text ends before the first of these
  bool include_stop_str_in_output = false;
  bool ignore_eos = false;
  int64_t logprobs = -1;         // of each new token, and so many of the likeliest; -1: none
  int64_t prompt_logprobs = -1;  // the same of the prompt's tokens
  bool skip_special_tokens = true;
  std::optional<StructuredOutputsParams> structured_outputs = {};

  bool has_penalties() const {
    return repetition_penalty != 1 || frequency_penalty != 0 || presence_penalty != 0;
  }
};

// Throws kInvalidArgument for a value out of range, naming it.
void validate(const SamplingParams& params, int64_t vocab);

struct TokenLogprobs {
  int32_t token = 0;
  double logprob = 0;
  std::vector<std::pair<int32_t, double>> top;  // token and log probability, most likely first
};

struct Request {
  std::vector<int32_t> prompt;
  SamplingParams sampling;
  int64_t priority = 0;    // lower ones go first
  std::string cache_salt;  // requests with other salts share no cached prefix
  // Engine::compile_grammar() of sampling.structured_outputs; submit() makes it where it lacks.
  std::shared_ptr<const text::Grammar> grammar = nullptr;
};

enum class FinishReason { kStop, kLength, kAborted, kError };
// "stop", "length", "abort", "error", as OpenAI and vLLM say.
const char* to_string(FinishReason reason);

// What is new since the last output of the same request.
struct RequestOutput {
  int64_t request = 0;
  std::string text;  // valid UTF-8, nothing that may yet become a stop string
  std::vector<int32_t> tokens;
  std::vector<TokenLogprobs> logprobs;         // one a token, when asked for
  std::vector<TokenLogprobs> prompt_logprobs;  // all but the first prompt token, once
  std::optional<FinishReason> finished;
  std::string error;  // why, with FinishReason::kError
  // kInternal: the step that computed it has failed. kInvalidArgument: its grammar allows nothing.
  Code error_code = Code::kInternal;
  std::string stop;           // the stop string or the number of the token that ended it
  int64_t cached_tokens = 0;  // of the prompt, found in the cache
  double queue_seconds = 0;   // from its submission to the start of its first step

  void clear();  // keeps the memory
};

// Called on the thread that drives the engine; must not block it.
using OutputCallback = std::function<void(const RequestOutput&)>;

}  // namespace ttpu::engine
