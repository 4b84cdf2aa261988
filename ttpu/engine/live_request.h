// What the engine keeps of a request. For the engine's own files.
#pragma once

#include "ttpu/engine/engine.h"

namespace ttpu::engine {

// A request that has not ended.
struct Engine::Live : Sequence {
  Live(Request given, OutputCallback callback, const TextProcessor& text)
      : request(std::move(given)),
        on_output(std::move(callback)),
        matcher(request.sampling.stop, request.sampling.include_stop_str_in_output) {
    if (text.has_tokenizer()) {
      detokenizer.emplace(text.tokenizer(), request.sampling.skip_special_tokens);
    }
  }

  Request request;
  std::chrono::steady_clock::time_point submitted = std::chrono::steady_clock::now();
  double queue_seconds = 0;  // until its first step
  OutputCallback on_output;
  std::optional<text::Detokenizer> detokenizer;  // none: the model has no tokenizer
  text::StopMatcher matcher;
  std::unique_ptr<Constraint> constraint;             // none: anything may come
  std::vector<std::pair<int32_t, float>> early_bias;  // while the answer is shorter than min_tokens
  std::vector<std::pair<int32_t, float>> step_bias;   // of the step that is being made
  std::vector<TokenLogprobs> prompt_logprobs;         // as far as they are known
  int64_t history_of = -1;                            // Sequence::preemptions when counts were set
  bool started = false;                               // some of it has been computed
};

}  // namespace ttpu::engine
