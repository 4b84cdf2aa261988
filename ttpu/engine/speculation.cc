#include "ttpu/engine/speculation.h"

#include <algorithm>

#include "ttpu/base/error.h"

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

SpeculationOptions speculation_from_config(const Json& config) {
  const JsonView view(config, "--speculative-config");
  SpeculationOptions options;
  for (const auto& [key, value] : config.items()) {
    const bool known = key == "num_speculative_tokens" || key == "model" || key == "method" ||
                       key == "prompt_lookup_max" || key == "prompt_lookup_min";
    require(known,
            "[speculation] --speculative-config has `{}`; known are num_speculative_tokens, model, "
            "method, prompt_lookup_max and prompt_lookup_min",
            key);
  }
  options.num_speculative_tokens = view.get<int64_t>("num_speculative_tokens");
  if (view.has("model")) options.model = view.get<std::string>("model");
  const std::string method = options.model.empty() ? "ngram" : "draft_model";
  if (view.has("method") && view.get<std::string>("method") != method) {
    fail(Code::kInvalidArgument,
         "[speculation] --speculative-config has the method '{}', expected 'ngram' without a model "
         "and 'draft_model' with one",
         view.get<std::string>("method"));
  }
  if (view.has("prompt_lookup_max")) {
    options.prompt_lookup_max = view.get<int64_t>("prompt_lookup_max");
  }
  if (view.has("prompt_lookup_min")) {
    options.prompt_lookup_min = view.get<int64_t>("prompt_lookup_min");
  }
  return options;
}

void SpeculationGovernor::plain_step(double seconds) {
  plain_seconds_ = plain_seconds_ == 0 ? seconds : 0.9 * plain_seconds_ + 0.1 * seconds;
  if (resting_ > 0) --resting_;
}

void SpeculationGovernor::speculative_step(double seconds, int64_t sequences, int64_t tokens) {
  const double each = static_cast<double>(tokens) / static_cast<double>(sequences);
  seconds_ += seconds;
  tokens_ += each;
  trial_seconds_ += seconds;
  trial_tokens_ += each;
  if (++trial_steps_ < kTrial) return;
  // Without plain steps there is nothing to compare with: a few are made.
  const bool pays = plain_seconds_ > 0 && trial_tokens_ * plain_seconds_ > trial_seconds_;
  if (!pays) resting_ = plain_seconds_ > 0 ? kRest : kTrial;
  trial_seconds_ = trial_tokens_ = 0;
  trial_steps_ = 0;
}

}  // namespace ttpu::engine
