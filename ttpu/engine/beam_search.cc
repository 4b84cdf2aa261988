#include "ttpu/engine/beam_search.h"

#include <algorithm>
#include <cmath>

#include "ttpu/base/error.h"

namespace ttpu::engine {

BeamSearch::BeamSearch(std::vector<int32_t> prompt, const BeamSearchParams& params,
                       const std::vector<int32_t>& end_tokens, int64_t max_model_len)
    : prompt_(std::move(prompt)), params_(params), ends_(params.stop_token_ids) {
  require(params.beam_width >= 1 && params.beam_width <= kMostLogprobs / 2,
          "[beam_search] beam_width is {}, expected 1 to {}", params.beam_width, kMostLogprobs / 2);
  require(params.max_tokens >= 1, "[beam_search] max_tokens is {}, expected at least 1",
          params.max_tokens);
  require(std::isfinite(params.length_penalty), "[beam_search] length_penalty is {}",
          params.length_penalty);
  if (!params.ignore_eos) ends_.insert(ends_.end(), end_tokens.begin(), end_tokens.end());
  std::sort(ends_.begin(), ends_.end());
  ends_.erase(std::unique(ends_.begin(), ends_.end()), ends_.end());
  max_tokens_ = std::min(params.max_tokens, max_model_len - static_cast<int64_t>(prompt_.size()));
}

// As many continuations as leave beam_width that go on, whichever end.
std::vector<Request> BeamSearch::requests() const {
  const auto ends = static_cast<int64_t>(ends_.size());
  std::vector<Request> requests;
  for (const Beam& beam : beams_) {
    Request request;
    request.prompt = prompt_;
    request.prompt.insert(request.prompt.end(), beam.tokens.begin(), beam.tokens.end());
    request.cache_salt = params_.cache_salt;
    request.priority = params_.priority;
    request.sampling.max_tokens = 1;
    request.sampling.ignore_eos = true;
    request.sampling.logprobs =
        std::min(kMostLogprobs, std::max<int64_t>(2, 1 + ends) * params_.beam_width);
    requests.push_back(std::move(request));
  }
  return requests;
}

double BeamSearch::score_of(double logprob, int64_t length) const {
  return logprob / std::pow(static_cast<double>(length), params_.length_penalty);
}

void BeamSearch::keep(BeamAnswer answer) {
  const auto place =
      std::upper_bound(answers_.begin(), answers_.end(), answer,
                       [](const BeamAnswer& a, const BeamAnswer& b) { return a.score > b.score; });
  answers_.insert(place, std::move(answer));
  if (static_cast<int64_t>(answers_.size()) > params_.beam_width) answers_.pop_back();
}

// No beam can become better than the worst answer, as far as beams of this length tell.
bool BeamSearch::over(int64_t length) const {
  if (beams_.empty() || length >= max_tokens_) return true;
  if (static_cast<int64_t>(answers_.size()) < params_.beam_width) return false;
  return params_.early_stopping ||
         score_of(beams_.front().logprob, length) <= answers_.back().score;
}

void BeamSearch::advance(std::span<const TokenLogprobs> sampled) {
  require(sampled.size() == beams_.size(), "[beam_search] {} results for {} beams", sampled.size(),
          beams_.size());
  struct Candidate {
    size_t beam;
    int32_t token;
    double logprob;
  };
  std::vector<Candidate> candidates;
  for (size_t b = 0; b < beams_.size(); ++b) {
    for (const auto& [token, logprob] : sampled[b].top) {
      candidates.push_back({b, token, beams_[b].logprob + logprob});
    }
  }
  std::stable_sort(candidates.begin(), candidates.end(),
                   [](const Candidate& a, const Candidate& b) { return a.logprob > b.logprob; });
  const auto width = static_cast<size_t>(params_.beam_width);
  const auto length = static_cast<int64_t>(beams_.front().tokens.size()) + 1;
  std::vector<Beam> next;
  for (size_t rank = 0; rank < candidates.size() && next.size() < width; ++rank) {
    const Candidate& candidate = candidates[rank];
    std::vector<int32_t> tokens = beams_[candidate.beam].tokens;
    tokens.push_back(candidate.token);
    const bool ends = std::binary_search(ends_.begin(), ends_.end(), candidate.token);
    // An answer must be among the best, so that a poor end does not cut a good beam short.
    if ((ends || length >= max_tokens_) && rank < width) {
      keep({tokens, candidate.logprob, score_of(candidate.logprob, length),
            ends ? FinishReason::kStop : FinishReason::kLength});
    }
    if (!ends) next.push_back({std::move(tokens), candidate.logprob});
  }
  beams_ = std::move(next);
  if (over(length)) beams_.clear();
}

std::vector<BeamAnswer> beam_search(Engine& engine, std::vector<int32_t> prompt,
                                    const BeamSearchParams& params,
                                    const std::atomic<bool>* cancelled) {
  BeamSearch search(std::move(prompt), params, engine.text().end_tokens(), engine.max_model_len());
  std::vector<Request> requests = search.requests();
  for (const Request& request : requests) engine.check(request);
  while (!requests.empty()) {
    std::vector<TokenLogprobs> sampled(requests.size());
    size_t left = requests.size();
    std::string error;
    for (size_t i = 0; i < requests.size(); ++i) {
      engine.submit(std::move(requests[i]), [&, i](const RequestOutput& output) {
        if (!output.logprobs.empty()) sampled[i] = output.logprobs.front();
        if (!output.error.empty()) error = output.error;
        if (output.finished) --left;
      });
    }
    while (left > 0) engine.step();
    if (!error.empty()) fail(Code::kInternal, "{}", error);
    if (cancelled != nullptr && cancelled->load()) {
      fail(Code::kCancelled, "[beam_search] interrupted");
    }
    search.advance(sampled);
    requests = search.requests();
  }
  return search.answers();
}

}  // namespace ttpu::engine
