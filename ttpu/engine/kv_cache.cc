#include "ttpu/engine/kv_cache.h"

#include <algorithm>

#include "ttpu/base/error.h"

namespace ttpu::engine {

int64_t blocks_of_sequence(std::optional<int64_t> window, int64_t length, int64_t chunk,
                           int64_t block_size) {
  const int64_t all = (length + block_size - 1) / block_size;
  if (!window) return all;
  // The window and the new tokens may both begin within a block, and one block may still wait for
  // its last token to be known before it is published.
  return std::min(all, (*window + chunk + block_size - 1) / block_size + 2);
}

KvCache::KvCache(const std::vector<KvGroup>& groups, int64_t block_size, bool prefix_caching)
    : block_size_(block_size), prefix_caching_(prefix_caching) {
  require(block_size > 0 && !groups.empty(), "[cache] {} groups of blocks of {} tokens",
          groups.size(), block_size);
  for (const KvGroup& group : groups) groups_.push_back({BlockPool(group.blocks), group.window});
}

double KvCache::usage() const {
  double most = 0;
  for (const Group& group : groups_) {
    const auto size = static_cast<double>(group.pool.size());
    most = std::max(most, (size - static_cast<double>(group.pool.free())) / size);
  }
  return most;
}

bool KvCache::fits(int64_t length, int64_t chunk) const {
  return std::all_of(groups_.begin(), groups_.end(), [&](const Group& group) {
    return blocks_of_sequence(group.window, length, chunk, block_size_) <= group.pool.size();
  });
}

int64_t KvCache::first_seen(const Group& group, int64_t position) const {
  if (!group.window) return 0;
  return std::max<int64_t>(position - *group.window + 1, 0) / block_size_;
}

void KvCache::hash_blocks(Sequence& sequence) const {
  const size_t full = sequence.tokens.size() / static_cast<size_t>(block_size_);
  while (sequence.hashes.size() < full) {
    const size_t index = sequence.hashes.size();
    const BlockHash& parent = index == 0 ? sequence.salt : sequence.hashes.back();
    sequence.hashes.push_back(chain_hash(
        parent,
        std::span(sequence.tokens)
            .subspan(index * static_cast<size_t>(block_size_), static_cast<size_t>(block_size_))));
  }
}

bool KvCache::holds(const Group& group, const Sequence& sequence, int64_t begin,
                    int64_t end) const {
  for (int64_t block = begin; block < end; ++block) {
    if (!group.pool.find(sequence.hashes[static_cast<size_t>(block)])) return false;
  }
  return true;
}

int64_t KvCache::take_prefix(Sequence& sequence) {
  sequence.blocks.resize(groups_.size());
  if (!prefix_caching_ || !sequence.reuse) return 0;
  hash_blocks(sequence);
  int64_t count = std::min(static_cast<int64_t>(sequence.hashes.size()),
                           (static_cast<int64_t>(sequence.tokens.size()) - 1) / block_size_);
  // The longest prefix of which every group holds what the token behind it sees.
  for (const Group& group : groups_) {
    if (group.window) continue;
    int64_t found = 0;
    while (found < count && holds(group, sequence, found, found + 1)) ++found;
    count = found;
  }
  const auto all_hold = [&](int64_t blocks) {
    return std::all_of(groups_.begin(), groups_.end(), [&](const Group& group) {
      return !group.window ||
             holds(group, sequence, first_seen(group, blocks * block_size_), blocks);
    });
  };
  while (count > 0 && !all_hold(count)) --count;
  for (size_t g = 0; g < groups_.size(); ++g) {
    const int64_t first = first_seen(groups_[g], count * block_size_);
    sequence.blocks[g].assign(static_cast<size_t>(count), Sequence::kNoBlock);
    for (int64_t block = first; block < count; ++block) {
      const int32_t found = *groups_[g].pool.find(sequence.hashes[static_cast<size_t>(block)]);
      groups_[g].pool.share(found);
      sequence.blocks[g][static_cast<size_t>(block)] = found;
    }
  }
  sequence.published = count;
  return count * block_size_;
}

bool KvCache::fork(const Sequence& from, Sequence& to, int64_t length) {
  const int64_t count = blocks_for(length);
  for (size_t g = 0; g < groups_.size(); ++g) {
    if (g >= from.blocks.size() || static_cast<int64_t>(from.blocks[g].size()) < count)
      return false;
    for (int64_t block = first_seen(groups_[g], length); block < count; ++block) {
      if (from.blocks[g][static_cast<size_t>(block)] == Sequence::kNoBlock) return false;
    }
  }
  to.blocks.resize(groups_.size());
  for (size_t g = 0; g < groups_.size(); ++g) {
    to.blocks[g].assign(static_cast<size_t>(count), Sequence::kNoBlock);
    for (int64_t block = first_seen(groups_[g], length); block < count; ++block) {
      const int32_t held = from.blocks[g][static_cast<size_t>(block)];
      groups_[g].pool.share(held);
      to.blocks[g][static_cast<size_t>(block)] = held;
    }
  }
  to.published = std::min(from.published, length / block_size_);
  return true;
}

bool KvCache::must_copy(const Group& group, const std::vector<int32_t>& blocks,
                        size_t index) const {
  return index < blocks.size() && blocks[index] != Sequence::kNoBlock &&
         group.pool.references(blocks[index]) > 1;
}

bool KvCache::reserve(Sequence& sequence, int64_t length) {
  sequence.blocks.resize(groups_.size());
  const auto wanted = static_cast<size_t>(blocks_for(length));
  const auto first = static_cast<size_t>(sequence.computed / block_size_);
  for (size_t g = 0; g < groups_.size(); ++g) {
    const size_t have = sequence.blocks[g].size();
    const size_t missing = wanted > have ? wanted - have : 0;
    const size_t copies = must_copy(groups_[g], sequence.blocks[g], first) ? 1 : 0;
    if (static_cast<int64_t>(missing + copies) > groups_[g].pool.free()) return false;
  }
  for (size_t g = 0; g < groups_.size(); ++g) {
    std::vector<int32_t>& blocks = sequence.blocks[g];
    BlockPool& pool = groups_[g].pool;
    if (must_copy(groups_[g], blocks, first)) {
      const int32_t own = pool.take();
      copies_.push_back({static_cast<int64_t>(g), blocks[first], own});
      pool.release(blocks[first]);
      blocks[first] = own;
    } else if (first < blocks.size() && blocks[first] != Sequence::kNoBlock) {
      pool.forget(blocks[first]);  // whoever published it has gone
    }
    while (blocks.size() < wanted) blocks.push_back(pool.take());
  }
  return true;
}

void KvCache::drop_unseen(Sequence& sequence) {
  for (size_t g = 0; g < groups_.size(); ++g) {
    int64_t unseen = first_seen(groups_[g], sequence.computed);
    // What is not published yet stays until its tokens are known.
    if (prefix_caching_) unseen = std::min(unseen, sequence.published);
    std::vector<int32_t>& blocks = sequence.blocks[g];
    for (int64_t block = unseen - 1; block >= 0; --block) {
      int32_t& held = blocks[static_cast<size_t>(block)];
      if (held == Sequence::kNoBlock) break;
      groups_[g].pool.release(held);
      held = Sequence::kNoBlock;
    }
  }
}

void KvCache::publish(Sequence& sequence) {
  if (!prefix_caching_) return;
  hash_blocks(sequence);
  const int64_t full =
      std::min(sequence.computed / block_size_, static_cast<int64_t>(sequence.hashes.size()));
  for (; sequence.published < full; ++sequence.published) {
    const auto index = static_cast<size_t>(sequence.published);
    for (size_t g = 0; g < groups_.size(); ++g) {
      const int32_t held = sequence.blocks[g][index];
      if (held != Sequence::kNoBlock) groups_[g].pool.publish(held, sequence.hashes[index]);
    }
  }
}

void KvCache::forget_all() {
  for (Group& group : groups_) {
    for (int32_t block = 0; block < group.pool.size(); ++block) group.pool.forget(block);
  }
}

void KvCache::release(Sequence& sequence) {
  for (size_t g = 0; g < sequence.blocks.size(); ++g) {
    // The last first, so that of a prefix the tail is evicted before the head.
    for (auto block = sequence.blocks[g].rbegin(); block != sequence.blocks[g].rend(); ++block) {
      if (*block != Sequence::kNoBlock) groups_[g].pool.release(*block);
    }
    sequence.blocks[g].clear();
  }
  sequence.published = 0;
}

}  // namespace ttpu::engine
