// Which blocks of the paged cache each sequence has. Knows nothing of devices: a block is a number.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "ttpu/engine/sequence.h"

namespace ttpu::engine {

// Layers that see the same positions share one table of blocks; layer l's array has `blocks` pages.
struct KvGroup {
  int64_t blocks = 0;
  std::optional<int64_t> window = {};  // sliding window in tokens
};

// What one sequence holds at most, computed in steps of at most `chunk` tokens.
int64_t blocks_of_sequence(std::optional<int64_t> window, int64_t length, int64_t chunk,
                           int64_t block_size);

// What a step has to do first, in this order: a block that several sequences hold is copied for
// the one that is about to write into it.
struct BlockCopy {
  int64_t group = 0;
  int32_t from = 0;
  int32_t to = 0;
};

class KvCache {
 public:
  KvCache(const std::vector<KvGroup>& groups, int64_t block_size, bool prefix_caching);

  int64_t block_size() const { return block_size_; }
  int64_t num_groups() const { return static_cast<int64_t>(groups_.size()); }
  // Of the fullest group, 0 to 1.
  double usage() const;
  // Whether a sequence of this length can run alone, in steps of at most `chunk` tokens.
  bool fits(int64_t length, int64_t chunk) const;

  // Gives the sequence, which has no blocks, the longest prefix of its tokens that is still in the
  // cache; at least its last token stays to be computed. Returns the tokens of that prefix.
  int64_t take_prefix(Sequence& sequence);
  // Gives the sequence, which has no blocks, those that hold the first `length` tokens of another
  // one, which are its own tokens, too. False, with nothing changed, when what its next token sees
  // is not there any more.
  bool fork(const Sequence& from, Sequence& to, int64_t length);
  // Makes blocks for the positions before `length`, so that those from Sequence::computed on can be
  // written. False, with nothing changed, when too few are free.
  bool reserve(Sequence& sequence, int64_t length);
  // Gives back the blocks that neither the next token nor any later one sees.
  void drop_unseen(Sequence& sequence);
  // After a step has been scheduled: full blocks of known tokens among those computed become
  // findable.
  void publish(Sequence& sequence);
  void release(Sequence& sequence);
  // Nothing that was published is found any more: the device has lost it.
  void forget_all();
  // Of the blocks that were reserved since clear_copies().
  std::span<const BlockCopy> copies() const { return copies_; }
  void clear_copies() { copies_.clear(); }

 private:
  struct Group {
    BlockPool pool;
    std::optional<int64_t> window;
  };
  void hash_blocks(Sequence& sequence) const;
  int64_t blocks_for(int64_t tokens) const { return (tokens + block_size_ - 1) / block_size_; }
  // The first block that a token at `position` sees.
  int64_t first_seen(const Group& group, int64_t position) const;
  bool holds(const Group& group, const Sequence& sequence, int64_t begin, int64_t end) const;

  bool must_copy(const Group& group, const std::vector<int32_t>& blocks, size_t index) const;

  std::vector<Group> groups_;
  std::vector<BlockCopy> copies_;
  int64_t block_size_;
  bool prefix_caching_;
};

}  // namespace ttpu::engine
