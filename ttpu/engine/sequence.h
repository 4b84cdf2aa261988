// One sequence of tokens on its way through the engine.
#pragma once

#include <cstdint>
#include <vector>

#include "ttpu/engine/block_pool.h"

namespace ttpu::engine {

struct Sequence {
  static constexpr int32_t kNoBlock = -1;  // not yet given, or behind the window

  int64_t id = 0;               // in the order of arrival
  int64_t priority = 0;         // lower ones go first
  std::vector<int32_t> tokens;  // the prompt and what has been sampled, as far as the host knows
  int64_t prompt_length = 0;
  int64_t max_length = 0;  // of prompt and answer
  BlockHash salt;          // of the cache's content
  bool reuse = true;       // its prompt may be taken from the cache
  // Its next step needs to know its last token on the host (grammars, words that must not come).
  bool synchronous = false;
  bool wants_all_rows = false;  // the logits of every prompt token are wanted
  std::vector<int32_t> drafts;  // guesses of the next tokens, for the next step
  // Has the same tokens but for the last one, before this sequence in the order: they are computed
  // once, and this sequence waits for them and takes its blocks.
  const Sequence* leader = nullptr;

  int32_t replica = 0;  // of the model, which computes it

  // Kept by the scheduler.
  int64_t computed = 0;   // tokens whose keys and values are in the cache, once what runs is done
  int64_t settled = 0;    // of those, computed by steps before the one that was scheduled last
  int64_t pending = 0;    // sampled by steps that still run: counted, their values not yet known
  int64_t in_flight = 0;  // steps that still run and have this sequence in them
  int32_t slot = -1;      // its place in the device's arrays of sequences; -1: waiting
  bool finished = false;
  int64_t preemptions = 0;
  int64_t cached_prefix = 0;  // tokens that were found in the cache when it was admitted

  // Kept by the cache.
  std::vector<std::vector<int32_t>> blocks;  // [group][block of the sequence]
  std::vector<BlockHash> hashes;             // of the full blocks of `tokens`
  int64_t published = 0;                     // full blocks that others may find

  int64_t length() const { return static_cast<int64_t>(tokens.size()) + pending; }
};

}  // namespace ttpu::engine
