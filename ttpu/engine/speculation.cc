#include "ttpu/engine/speculation.h"

#include <algorithm>

namespace ttpu::engine {

std::vector<int32_t> propose_by_lookup(std::span<const int32_t> tokens,
                                       const SpeculationOptions& options, int64_t most) {
  const auto length = static_cast<int64_t>(tokens.size());
  for (int64_t run = std::min(options.prompt_lookup_max, length - 1);
       run >= options.prompt_lookup_min && most > 0; --run) {
    const auto tail = tokens.subspan(static_cast<size_t>(length - run));
    for (int64_t begin = length - run - 1; begin >= 0; --begin) {
      const auto place = tokens.begin() + begin;
      if (!std::equal(tail.begin(), tail.end(), place)) continue;
      const auto from = place + run;
      const int64_t count = std::min<int64_t>(most, tokens.end() - from);
      return {from, from + count};
    }
  }
  return {};
}

void SpeculationGovernor::plain_step(double seconds) {
  plain_seconds_ = plain_seconds_ == 0 ? seconds : 0.9 * plain_seconds_ + 0.1 * seconds;
  if (resting_ > 0) --resting_;
}

void SpeculationGovernor::speculative_step(double seconds, int64_t sequences, int64_t tokens) {
  trial_seconds_ += seconds;
  trial_tokens_ += static_cast<double>(tokens) / static_cast<double>(sequences);
  if (++trial_steps_ < kTrial) return;
  // Without plain steps there is nothing to compare with: a few are made.
  const bool pays = plain_seconds_ > 0 && trial_tokens_ * plain_seconds_ > trial_seconds_;
  if (!pays) resting_ = plain_seconds_ > 0 ? kRest : kTrial;
  trial_seconds_ = trial_tokens_ = 0;
  trial_steps_ = 0;
}

}  // namespace ttpu::engine
