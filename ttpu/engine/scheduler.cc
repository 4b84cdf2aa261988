#include "ttpu/engine/scheduler.h"

#include <algorithm>
#include <utility>

#include "ttpu/base/error.h"

namespace ttpu::engine {
namespace {

bool before(const Sequence* a, const Sequence* b) {
  return a->priority != b->priority ? a->priority < b->priority : a->id < b->id;
}

void insert(std::vector<Sequence*>& list, Sequence* sequence,
            bool (*order)(const Sequence*, const Sequence*)) {
  list.insert(std::upper_bound(list.begin(), list.end(), sequence, order), sequence);
}

bool after(const Sequence* a, const Sequence* b) { return before(b, a); }

}  // namespace

Scheduler::Scheduler(const SchedulerOptions& options, KvCache& cache)
    : options_(options), cache_(cache) {
  require(
      options.max_num_seqs > 0 && options.max_num_batched_tokens >= options.max_num_seqs,
      "[scheduler] max_num_batched_tokens is {}, max_num_seqs {}; every sequence needs at least "
      "one token of the budget",
      options.max_num_batched_tokens, options.max_num_seqs);
  for (int64_t slot = options.max_num_seqs; slot > 0; --slot) {
    slots_.push_back(static_cast<int32_t>(slot - 1));
  }
  running_.reserve(slots_.size());
  step_.reserve(slots_.size());
}

void Scheduler::add(Sequence& sequence) {
  require(!sequence.tokens.empty(), "[scheduler] the prompt has no tokens");
  if (!cache_.fits(sequence.max_length, options_.max_num_batched_tokens)) {
    fail(
        Code::kInvalidArgument,
        "[scheduler] {} tokens of prompt and answer do not fit in the cache; ask for fewer or give "
        "the cache more memory",
        sequence.max_length);
  }
  insert(waiting_, &sequence, after);
}

std::span<const Scheduled> Scheduler::schedule() {
  step_.clear();
  cache_.clear_copies();
  budget_ = options_.max_num_batched_tokens;
  rows_ = options_.max_rows;
  const int64_t preemptions = preemptions_;
  schedule_running();
  // Whoever lost its blocks just now shall not take them back from those that needed them.
  if (preemptions == preemptions_) schedule_waiting();
  // Decodes stand before pieces of prompts, as the kernels want it.
  const auto decodes = [](const Scheduled& item) { return item.count == 1; };
  if (!std::is_partitioned(step_.begin(), step_.end(), decodes)) {  // to do it takes memory
    std::stable_partition(step_.begin(), step_.end(), decodes);
  }
  for (const Scheduled& item : step_) {
    cache_.publish(*item.sequence);
    item.sequence->settled = item.sequence->computed;
  }
  return step_;
}

int64_t Scheduler::chunk(const Sequence& sequence, int64_t budget) const {
  // A long prompt takes half of what is left while others wait for their first step.
  const bool others_wait = waiting() > (sequence.slot < 0 ? 1 : 0) && !slots_.empty();
  if (others_wait) budget = (budget + 1) / 2;
  const int64_t count = std::min(sequence.length() - sequence.computed, budget);
  if (!sequence.wants_all_rows || sequence.computed >= sequence.prompt_length) {
    return rows_ > 0 ? count : std::min(count, sequence.length() - sequence.computed - 1);
  }
  return std::min(count, rows_);
}

// Drafts go along with a sequence's last token, as far as the step has room for them.
int64_t Scheduler::draft_count(const Sequence& sequence, int64_t count, int64_t budget) const {
  if (sequence.computed + count != sequence.length()) return 0;
  return std::max<int64_t>(
      0, std::min({static_cast<int64_t>(sequence.drafts.size()), budget - count, rows_ - 1}));
}

void Scheduler::schedule_running() {
  for (size_t i = 0; i < running_.size() && budget_ > 0; ++i) {
    Sequence& sequence = *running_[i];
    // An answer that has its full length once the running steps are done asks for no more.
    if (sequence.pending > 0 &&
        (sequence.synchronous || sequence.length() >= sequence.max_length)) {
      continue;
    }
    // A long prompt leaves every sequence after it a token of the budget, and a row.
    const auto others = static_cast<int64_t>(running_.size() - i - 1);
    rows_ -= others;
    const int64_t count = chunk(sequence, budget_ - others);
    const int64_t drafts = draft_count(sequence, count, budget_ - others);
    rows_ += others;
    if (count <= 0) continue;
    cache_.drop_unseen(sequence);
    if (make_room(i, sequence.computed + count + drafts)) take(sequence, count, drafts);
  }
}

// The first in the order that waits for no other one's blocks.
Sequence* Scheduler::next_waiting() const {
  const auto found = std::find_if(waiting_.rbegin(), waiting_.rend(), [](const Sequence* one) {
    return one->leader == nullptr ||
           one->leader->settled >= static_cast<int64_t>(one->tokens.size()) - 1;
  });
  return found == waiting_.rend() ? nullptr : *found;
}

// Its leader's blocks, or those that the cache still holds; gives how many tokens they hold.
int64_t Scheduler::take_cached(Sequence& sequence) {
  const auto shared = static_cast<int64_t>(sequence.tokens.size()) - 1;
  const Sequence* leader = std::exchange(sequence.leader, nullptr);
  if (leader != nullptr && cache_.fork(*leader, sequence, shared)) return shared;
  return cache_.take_prefix(sequence);
}

void Scheduler::schedule_waiting() {
  while (!slots_.empty() && budget_ > 0) {
    Sequence* const next = next_waiting();
    if (next == nullptr) return;
    Sequence& sequence = *next;
    if (sequence.pending > 0) return;  // preempted while a step ran: its token comes first
    const Sequence* const leader = sequence.leader;
    sequence.computed = sequence.cached_prefix = take_cached(sequence);
    const int64_t count = chunk(sequence, budget_);
    if (count <= 0 || !cache_.reserve(sequence, sequence.computed + count)) {
      cache_.release(sequence);
      sequence.computed = 0;
      sequence.leader = leader;
      return;
    }
    waiting_.erase(std::find(waiting_.begin(), waiting_.end(), next));
    sequence.slot = slots_.back();
    slots_.pop_back();
    insert(running_, &sequence, before);
    take(sequence, count, 0);
  }
}

// Blocks for the sequence at `index`, if need be at the cost of those that come after it.
bool Scheduler::make_room(size_t index, int64_t length) {
  Sequence& sequence = *running_[index];
  while (!cache_.reserve(sequence, length)) {
    Sequence& last = *running_.back();
    preempt(last);
    if (&last == &sequence) return false;
  }
  return true;
}

void Scheduler::take(Sequence& sequence, int64_t count, int64_t drafts) {
  const int64_t first = sequence.computed;
  sequence.computed += count;
  const bool samples = sequence.computed == sequence.length();
  sequence.computed += drafts;
  if (samples) ++sequence.pending;
  ++sequence.in_flight;
  budget_ -= count + drafts;
  rows_ -= sequence.wants_all_rows && first < sequence.prompt_length ? count : samples;
  rows_ -= drafts;
  step_.push_back({&sequence, first, count + drafts, samples, drafts});
}

void Scheduler::preempt(Sequence& sequence) {
  cache_.release(sequence);
  sequence.computed = sequence.settled = 0;
  slots_.push_back(sequence.slot);
  sequence.slot = -1;
  ++sequence.preemptions;
  ++preemptions_;
  running_.erase(std::find(running_.begin(), running_.end(), &sequence));
  insert(waiting_, &sequence, after);
}

void Scheduler::complete(const Scheduled& item, std::span<const int32_t> tokens) {
  Sequence& sequence = *item.sequence;
  --sequence.in_flight;
  if (!item.samples) return;
  --sequence.pending;
  if (sequence.finished) return;
  sequence.tokens.insert(sequence.tokens.end(), tokens.begin(), tokens.end());
  // What was computed for wrong drafts is written over. A sequence without a slot starts anew.
  const auto right = static_cast<int64_t>(tokens.size()) - 1;
  if (sequence.slot >= 0) sequence.computed -= item.drafts - right;
}

void Scheduler::finish(Sequence& sequence) {
  if (sequence.finished) return;
  sequence.finished = true;
  cache_.release(sequence);
  for (Sequence* const waiting : waiting_) {
    if (waiting->leader == &sequence) waiting->leader = nullptr;
  }
  std::vector<Sequence*>& list = sequence.slot >= 0 ? running_ : waiting_;
  list.erase(std::find(list.begin(), list.end(), &sequence));
  if (sequence.slot >= 0) slots_.push_back(sequence.slot);
  sequence.slot = -1;
}

}  // namespace ttpu::engine
