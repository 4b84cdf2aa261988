// Speculative decoding: tokens are guessed, and one step looks at all of them at once. A guess is
// kept where it is what would have been sampled there anyway, so that the text is that without
// speculation, greedy or not (see ttpu/kernels/sampling/sampling.h).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "ttpu/base/json.h"

namespace ttpu::engine {

struct SpeculationOptions {
  int64_t num_speculative_tokens = 0;  // guesses a step; 0: none
  int64_t prompt_lookup_max = 4;       // the longest run of tokens that is looked up
  int64_t prompt_lookup_min = 2;       // and the shortest
  std::string model = {};              // guesses (DraftModel); empty: prompt lookup
};

// vLLM's --speculative-config: num_speculative_tokens, model, method ("ngram" or "draft_model"),
// prompt_lookup_max, prompt_lookup_min. Throws kInvalidArgument for what else it has.
SpeculationOptions speculation_from_config(const Json& config);

// Prompt lookup: the tokens that followed the last occurrence of the sequence's last tokens,
// longest runs first. At most `most` of them, often none.
std::vector<int32_t> propose_by_lookup(std::span<const int32_t> tokens,
                                       const SpeculationOptions& options, int64_t most);

// Whether guessing pays: compares what a sequence gets of a second of plain steps with what it gets
// of a second of steps with guesses, and rests for a while when that is less.
class SpeculationGovernor {
 public:
  bool speculate() const { return resting_ == 0; }
  // Tokens of a second with guesses for each of a second without; 0: not known yet.
  double speed_up() const { return seconds_ > 0 ? tokens_ * plain_seconds_ / seconds_ : 0; }
  // A step in which every sequence got one token.
  void plain_step(double seconds);
  // A step in which `sequences` got `tokens`.
  void speculative_step(double seconds, int64_t sequences, int64_t tokens);

 private:
  static constexpr int64_t kTrial = 24;  // steps between two looks
  static constexpr int64_t kRest = 256;  // steps without guesses after a look that was not good

  double plain_seconds_ = 0;  // of a step; a moving average, 0: not known
  double seconds_ = 0;        // of all steps with guesses
  double tokens_ = 0;         // of a sequence in them
  double trial_seconds_ = 0;
  double trial_tokens_ = 0;  // of a sequence
  int64_t trial_steps_ = 0;
  int64_t resting_ = 0;  // steps
};

}  // namespace ttpu::engine
