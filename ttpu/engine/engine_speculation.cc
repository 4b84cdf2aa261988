// The engine's guesses, and the masks of grammars, which depend on them.
#include <algorithm>
#include <chrono>

#include "ttpu/base/error.h"
#include "ttpu/engine/live_request.h"

namespace ttpu::engine {

void Engine::propose_drafts() {
  wanted_drafts_.clear();
  for (const auto& [id, live] : live_) {
    if (live->pending > 0) continue;  // its drafts, if any, are being looked at
    const SamplingParams& sampling = live->request.sampling;
    live->drafts.clear();
    // Words that must not come and penalties depend on what is sampled between.
    if (sampling.has_penalties() || !sampling.bad_words.empty() || sampling.min_tokens > 0) {
      continue;
    }
    live->synchronous = governor_.speculate() || live->constraint != nullptr;
    const bool decodes = live->slot >= 0 && live->computed == live->length() - 1;
    if (!governor_.speculate() || !decodes) continue;
    const int64_t most = std::min(options_.speculation.num_speculative_tokens,
                                  live->max_length - static_cast<int64_t>(live->tokens.size()) - 1);
    if (most <= 0) continue;
    wanted_drafts_.push_back({live.get(), &sampling, most});
  }
  if (draft_ && !wanted_drafts_.empty()) draft_->propose(wanted_drafts_);
  for (const DraftModel::Wanted& wanted : wanted_drafts_) {
    Live& live = static_cast<Live&>(*wanted.sequence);
    if (!draft_) live.drafts = propose_by_lookup(live.tokens, options_.speculation, wanted.most);
    if (!live.constraint) continue;
    live.constraint->propose(live.drafts, static_cast<size_t>(wanted.most));
    masks_due_.push_back(&live);
  }
  prepare_masks();
}

// What the grammars of `masks_due_` allow next, and behind their drafts.
void Engine::prepare_masks() {
  mask_workers_.run(masks_due_.size(), [this](size_t i) {
    masks_due_[i]->constraint->prepare(masks_due_[i]->drafts);
  });
  for (Live* live : masks_due_) {
    const std::string& why = live->constraint->error();
    if (why.empty()) continue;
    end_with_error(*live, Error(Code::kInvalidArgument, why));
    forget_if_done(*live);
  }
  masks_due_.clear();
}

// What the step has sampled for an item: up to and with the first token that no draft foresaw.
std::span<const int32_t> Engine::take_sampled(const Launched& step, const StepResult& result,
                                              size_t item, size_t& row, RequestOutput& output) {
  const Live& live = static_cast<const Live&>(*step.items[item].sequence);
  sampled_.clear();
  bool foreseen = true;
  for (; row < step.rows.size() && step.row_items[row] == item; ++row) {
    const bool of_prompt = step.rows[row].target >= 0;
    if (!of_prompt && !foreseen) continue;
    if (!live.finished) collect_logprobs(step, result, row, output);
    if (of_prompt) continue;
    const size_t place = sampled_.size();
    sampled_.push_back(result.tokens[row]);
    foreseen = place < live.drafts.size() && live.drafts[place] == result.tokens[row];
  }
  return sampled_;
}

void Engine::judge_speculation(const Launched& step, int64_t tokens) {
  if (options_.speculation.num_speculative_tokens == 0) return;
  const auto start = std::max(step.start, last_finish_);
  last_finish_ = std::chrono::steady_clock::now();
  const double seconds = std::chrono::duration<double>(last_finish_ - start).count();
  const auto all = [&](auto predicate) {
    return std::all_of(step.items.begin(), step.items.end(), predicate);
  };
  // Only steps that do nothing else can be compared.
  if (!all([](const Scheduled& item) { return item.samples && item.count - item.drafts == 1; })) {
    return;
  }
  if (all([](const Scheduled& item) { return item.drafts == 0; })) {
    governor_.plain_step(seconds);
  } else {
    governor_.speculative_step(seconds, static_cast<int64_t>(step.items.size()), tokens);
  }
  metrics_.speculation_speed_up = governor_.speed_up();
}

}  // namespace ttpu::engine
