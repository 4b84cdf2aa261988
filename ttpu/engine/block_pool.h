// The blocks (pages) of a paged cache: who uses them, and what the unused ones still hold.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace ttpu::engine {

// Of a block's tokens and of all tokens before it, so that equal hashes mean equal prefixes.
struct BlockHash {
  uint64_t low = 0;
  uint64_t high = 0;
  bool operator==(const BlockHash&) const = default;
};
// `parent`: the hash of the block before; `salt` (of the first block) keeps apart what must not be
// shared.
BlockHash chain_hash(const BlockHash& parent, std::span<const int32_t> tokens);
BlockHash salt_hash(std::string_view salt);

// Reference counts, and a cache of published blocks that nobody uses, evicted least recently used
// first. Nothing allocates after the constructor.
class BlockPool {
 public:
  explicit BlockPool(int64_t blocks);

  int64_t size() const { return static_cast<int64_t>(blocks_.size()); }
  // Blocks without references, whether or not they still hold something.
  int64_t free() const { return free_; }
  // A block that is published under this hash. Takes no reference.
  std::optional<int32_t> find(const BlockHash& hash) const;

  // A free block with one reference; what it held is forgotten. Throws kResourceExhausted when
  // free() is 0.
  int32_t take();
  // One more reference.
  void share(int32_t block);
  void release(int32_t block);
  // From now on find() gives the block, until it is taken anew. When another block holds the same,
  // that one stays.
  void publish(int32_t block, const BlockHash& hash);
  // find() no longer gives the block.
  void forget(int32_t block);
  int64_t references(int32_t block) const { return at(block).references; }

 private:
  static constexpr int32_t kNone = -1;
  struct Block {
    int32_t references = 0;
    bool published = false;
    int32_t previous = kNone;  // in the list of free blocks
    int32_t next = kNone;
    int32_t chain = kNone;  // the next block of the same bucket
    BlockHash hash;
  };
  Block& at(int32_t block) { return blocks_[static_cast<size_t>(block)]; }
  const Block& at(int32_t block) const { return blocks_[static_cast<size_t>(block)]; }
  int32_t& bucket(const BlockHash& hash) { return buckets_[hash.low & (buckets_.size() - 1)]; }
  void unlink(int32_t block);
  void link(int32_t block, bool last);

  std::vector<Block> blocks_;
  std::vector<int32_t> buckets_;  // heads of chains; their number is a power of two
  int32_t first_ = kNone;         // the free block to take next
  int32_t last_ = kNone;
  int64_t free_ = 0;
};

}  // namespace ttpu::engine
