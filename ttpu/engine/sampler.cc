#include "ttpu/engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "ttpu/base/error.h"

namespace ttpu::engine {
namespace {

double log_sum_exp(std::span<const float> logits) {
  const float best = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit - best));
  return best + std::log(sum);
}

}  // namespace

void validate(const SamplingParams& params) {
  require(std::isfinite(params.temperature) && params.temperature >= 0,
          "[sampling] temperature is {}, expected 0 (greedy) or more", params.temperature);
  require(params.top_k >= 0, "[sampling] top_k is {}, expected 0 (all) or more", params.top_k);
  require(params.top_p > 0 && params.top_p <= 1,
          "[sampling] top_p is {}, expected a number in (0, 1]", params.top_p);
  require(params.min_p >= 0 && params.min_p <= 1,
          "[sampling] min_p is {}, expected a number from 0 to 1", params.min_p);
  require(std::isfinite(params.repetition_penalty) && params.repetition_penalty > 0,
          "[sampling] repetition_penalty is {}, expected a positive number",
          params.repetition_penalty);
  require(params.max_tokens >= 1, "[sampling] max_tokens is {}, expected at least 1",
          params.max_tokens);
  require(params.logprobs >= 0 && params.logprobs <= 1000,
          "[sampling] logprobs is {}, expected 0 to 1000", params.logprobs);
}

Sampler::Sampler(const SamplingParams& params, std::span<const int32_t> prompt, int64_t vocab)
    : params_(params), random_(params.seed), seen_(static_cast<size_t>(vocab)) {
  validate(params);
  for (const int32_t token : prompt) {
    require(token >= 0 && token < vocab,
            "[generate] the prompt has token {}, the model's vocabulary is [0, {})", token, vocab);
    seen_[static_cast<size_t>(token)] = true;
  }
}

void Sampler::penalize(std::span<float> logits) const {
  if (params_.repetition_penalty == 1) return;
  const auto penalty = static_cast<float>(params_.repetition_penalty);
  for (size_t i = 0; i < logits.size(); ++i) {
    if (seen_[i]) logits[i] = logits[i] > 0 ? logits[i] / penalty : logits[i] * penalty;
  }
}

int32_t Sampler::draw(std::span<const float> logits) {
  order_.resize(logits.size());
  std::iota(order_.begin(), order_.end(), 0);
  const auto greater = [&](int32_t a, int32_t b) {
    const float x = logits[static_cast<size_t>(a)];
    const float y = logits[static_cast<size_t>(b)];
    return x > y || (x == y && a < b);
  };
  size_t kept = logits.size();
  if (params_.top_k > 0) kept = std::min(kept, static_cast<size_t>(params_.top_k));
  std::partial_sort(order_.begin(), order_.begin() + static_cast<std::ptrdiff_t>(kept),
                    order_.end(), greater);
  const double best = logits[static_cast<size_t>(order_[0])];
  weights_.resize(kept);
  for (size_t i = 0; i < kept; ++i) {
    weights_[i] = std::exp((logits[static_cast<size_t>(order_[i])] - best) / params_.temperature);
  }
  while (kept > 1 && weights_[kept - 1] < params_.min_p) --kept;
  if (params_.top_p < 1) {
    const double total = std::accumulate(weights_.begin(),
                                         weights_.begin() + static_cast<std::ptrdiff_t>(kept), 0.0);
    double sum = 0;
    size_t count = 0;
    while (count < kept && sum < params_.top_p * total) sum += weights_[count++];
    kept = std::max<size_t>(count, 1);
  }
  const double total =
      std::accumulate(weights_.begin(), weights_.begin() + static_cast<std::ptrdiff_t>(kept), 0.0);
  double point = std::uniform_real_distribution<double>(0, total)(random_);
  for (size_t i = 0; i + 1 < kept; ++i) {
    if (point < weights_[i]) return order_[i];
    point -= weights_[i];
  }
  return order_[kept - 1];
}

Sampled Sampler::sample(std::span<float> logits) {
  require(logits.size() == seen_.size(), "[sampling] {} logits for a vocabulary of {}",
          logits.size(), seen_.size());
  penalize(logits);
  Sampled result;
  if (params_.temperature == 0) {
    result.token =
        static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  } else {
    result.token = draw(logits);
  }
  seen_[static_cast<size_t>(result.token)] = true;
  if (params_.logprobs == 0) return result;
  const double total = log_sum_exp(logits);
  result.logprob = logits[static_cast<size_t>(result.token)] - total;
  const auto count = std::min(static_cast<size_t>(params_.logprobs), logits.size());
  std::vector<int32_t> best(logits.size());
  std::iota(best.begin(), best.end(), 0);
  std::partial_sort(best.begin(), best.begin() + static_cast<std::ptrdiff_t>(count), best.end(),
                    [&](int32_t a, int32_t b) {
                      return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
                    });
  for (size_t i = 0; i < count; ++i) {
    result.top.emplace_back(best[i], logits[static_cast<size_t>(best[i])] - total);
  }
  return result;
}

}  // namespace ttpu::engine
