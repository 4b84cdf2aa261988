// Picks tokens from logits on the host, in the order of filters that vLLM has: penalty,
// temperature, min-p, top-k, top-p.
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <utility>
#include <vector>

namespace ttpu::engine {

struct SamplingParams {
  double temperature = 0;  // 0 is greedy
  int64_t top_k = 0;       // 0: all
  double top_p = 1;
  double min_p = 0;
  double repetition_penalty = 1;  // over prompt and output, as transformers has it
  uint64_t seed = 0;
  int64_t max_tokens = 256;
  int64_t logprobs = 0;  // the top so many of each step
  bool ignore_eos = false;
};

// Throws kInvalidArgument for a value out of range, naming it.
void validate(const SamplingParams& params);

struct Sampled {
  int32_t token = 0;
  double logprob = 0;
  std::vector<std::pair<int32_t, double>> top;  // token and log probability, most likely first
};

class Sampler {
 public:
  // `prompt` counts for the repetition penalty.
  Sampler(const SamplingParams& params, std::span<const int32_t> prompt, int64_t vocab);
  // `logits` [vocab] may be changed.
  Sampled sample(std::span<float> logits);

 private:
  void penalize(std::span<float> logits) const;
  int32_t draw(std::span<const float> logits);

  SamplingParams params_;
  std::mt19937_64 random_;
  std::vector<bool> seen_;
  std::vector<int32_t> order_;
  std::vector<double> weights_;
};

}  // namespace ttpu::engine
