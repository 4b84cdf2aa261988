// Beam search over an engine, with the rules of transformers' generate(num_beams=...): of the
// likeliest continuations of all beams those that end are kept as answers, the best others go on.
#pragma once

#include <atomic>
#include <vector>

#include "ttpu/engine/engine.h"

namespace ttpu::engine {

struct BeamSearchParams {
  int64_t beam_width = 4;  // at most kMostLogprobs / 2
  int64_t max_tokens = 256;
  double length_penalty = 1;    // an answer's score: its log probability / its tokens ^ this
  bool early_stopping = false;  // end when there are beam_width answers
  bool ignore_eos = false;
  std::vector<int32_t> stop_token_ids = {};  // besides the model's own
  std::string cache_salt = {};
  int64_t priority = 0;
};

struct BeamAnswer {
  std::vector<int32_t> tokens;  // with the end token, if there is one
  double logprob = 0;           // of all tokens
  double score = 0;
  FinishReason finish_reason = FinishReason::kLength;
};

// The search alone. A round asks for one token of every beam; what the beams have in common is in
// the engine's blocks.
class BeamSearch {
 public:
  // Throws kInvalidArgument for parameters out of range.
  BeamSearch(std::vector<int32_t> prompt, const BeamSearchParams& params,
             const std::vector<int32_t>& end_tokens, int64_t max_model_len);

  // The requests of this round; empty when the search is over.
  std::vector<Request> requests() const;
  // What the requests have sampled, in their order: the next round begins.
  void advance(std::span<const TokenLogprobs> sampled);
  // Best first; beam_width of them once the search is over.
  const std::vector<BeamAnswer>& answers() const { return answers_; }

 private:
  struct Beam {
    std::vector<int32_t> tokens;
    double logprob = 0;
  };
  double score_of(double logprob, int64_t length) const;
  void keep(BeamAnswer answer);
  bool over(int64_t length) const;

  std::vector<int32_t> prompt_;
  BeamSearchParams params_;
  std::vector<int32_t> ends_;
  int64_t max_tokens_;
  std::vector<Beam> beams_ = {{}};
  std::vector<BeamAnswer> answers_;
};

// Drives the engine until the search is over; other requests go on beside it. Throws kInternal when
// the engine has failed, kCancelled when `cancelled` was set.
std::vector<BeamAnswer> beam_search(Engine& engine, std::vector<int32_t> prompt,
                                    const BeamSearchParams& params,
                                    const std::atomic<bool>* cancelled = nullptr);

}  // namespace ttpu::engine
