// A small model that guesses what a large one will say: its own weights, programs and cache.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "ttpu/engine/runner.h"

namespace ttpu::engine {

struct DraftModelOptions {
  RunnerOptions runner;  // all but the shape and the buckets
  int64_t vocab = 0;     // of the large model
  int64_t max_model_len = 0;
  int64_t max_num_seqs = 1;
  int64_t max_num_batched_tokens = 1024;
  int64_t block_size = 64;
  DType cache_dtype = DType::kBF16;
};

// The cache has room for every slot at full length: slot s has the blocks from s * n on.
class DraftModel {
 public:
  // Throws kInvalidArgument for a model of another vocabulary, or for shorter texts.
  DraftModel(const std::filesystem::path& path, const DraftModelOptions& options,
             const Progress& progress = {});

  // What it takes of the memory that caches have, before it is loaded: its own caches, and its
  // weights where they are not a mapped file. The runner's client and device are not looked at.
  static int64_t bytes(const std::filesystem::path& path, const DraftModelOptions& options,
                       const kernels::Target& target);

  // A sequence that decodes, and how many guesses it wants.
  struct Wanted {
    Sequence* sequence = nullptr;
    const SamplingParams* sampling = nullptr;
    int64_t most = 0;
  };
  // Sets Sequence::drafts: what the model draws, token after token, with the request's own random
  // numbers, so that it agrees often with what the large model draws with the same ones. A guess
  // does not depend on anything else, and so verification by equality stays exact. Tokens of the
  // sequences that the model has not seen are computed first; what was computed for wrong guesses
  // is written over.
  void propose(std::span<const Wanted> wanted);

  // After a failure: empty caches.
  void reset();
  const LoadStats& stats() const { return runner_->stats(); }
  Runner& runner() { return *runner_; }
  const Runner& runner() const { return *runner_; }
  const StepTimes& times() const { return runner_->times(); }

 private:
  // What the cache holds in a slot.
  struct Slot {
    int64_t id = -1;    // of the sequence
    Sequence sequence;  // its tokens, and this model's blocks
  };

  void take_tokens(const Wanted& wanted);
  void read_and_guess(std::span<const Wanted> wanted);
  void guess_more(std::span<const Wanted> wanted, int64_t place);
  void launch();
  void finish();
  void add_row(const Wanted& wanted, int64_t token, int64_t place);

  DraftModelOptions options_;
  std::unique_ptr<Runner> runner_;
  std::vector<Slot> slots_;
  std::vector<Scheduled> items_;  // of the step that is being made
  std::vector<Row> rows_;
  std::vector<std::vector<int32_t>*> targets_;  // where the rows' tokens go
  // Of the steps that run, oldest first.
  std::vector<std::vector<std::vector<int32_t>*>> running_;
};

}  // namespace ttpu::engine
