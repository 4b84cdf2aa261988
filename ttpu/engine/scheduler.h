// Decides what each step computes. One token budget a step; sequences that decode and pieces of
// prompts share one ragged batch. First come, first served within a priority.
//
// The host stays one step ahead of the device: a step is scheduled while the one before still runs,
// so that a sequence's last token may be known to the device alone (Sequence::pending).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ttpu/engine/kv_cache.h"
#include "ttpu/engine/sequence.h"

namespace ttpu::engine {

struct SchedulerOptions {
  int64_t max_num_seqs = 1;
  int64_t max_num_batched_tokens = 1024;
  int64_t max_rows = 1;  // tokens of a step whose logits are looked at; at least max_num_seqs
};

// `count` tokens of the sequence from `first` on.
struct Scheduled {
  Sequence* sequence = nullptr;
  int64_t first = 0;
  int64_t count = 0;
  bool samples = false;  // the last of them is the sequence's last: a new token comes of it
  int64_t drafts = 0;    // of `count`, the last ones: Sequence::drafts
};

class Scheduler {
 public:
  // The cache must outlive the scheduler, and every sequence its time in it.
  Scheduler(const SchedulerOptions& options, KvCache& cache);

  // Throws kInvalidArgument when the sequence could never run.
  void add(Sequence& sequence);
  // What the next step computes, decodes first; empty when there is nothing to do now. Valid until
  // the next call. Sequences that had to give up their blocks wait at the head of their priority
  // and are computed anew.
  std::span<const Scheduled> schedule();
  // A step is done; `tokens` is what it sampled, if `item.samples`: one, and one for each draft
  // that was right.
  void complete(const Scheduled& item, std::span<const int32_t> tokens);
  // The sequence is over, wherever it stands; its blocks and its slot are free at once.
  void finish(Sequence& sequence);

  int64_t waiting() const { return static_cast<int64_t>(waiting_.size()); }
  int64_t running() const { return static_cast<int64_t>(running_.size()); }
  int64_t preemptions() const { return preemptions_; }

 private:
  bool make_room(size_t index, int64_t length);
  Sequence* next_waiting() const;
  int64_t take_cached(Sequence& sequence);
  void schedule_running();
  void schedule_waiting();
  // How many tokens of the sequence the step can take, of a budget.
  int64_t chunk(const Sequence& sequence, int64_t budget) const;
  int64_t draft_count(const Sequence& sequence, int64_t count, int64_t budget) const;
  void take(Sequence& sequence, int64_t count, int64_t drafts);
  void preempt(Sequence& sequence);

  SchedulerOptions options_;
  KvCache& cache_;
  std::vector<Sequence*> waiting_;  // by priority, then arrival; the next one last
  std::vector<Sequence*> running_;  // the one to go on first, first
  std::vector<int32_t> slots_;      // unused
  std::vector<Scheduled> step_;
  int64_t budget_ = 0;  // tokens left in the step
  int64_t rows_ = 0;    // rows left in it
  int64_t preemptions_ = 0;
};

}  // namespace ttpu::engine
