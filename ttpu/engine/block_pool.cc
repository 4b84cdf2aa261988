#include "ttpu/engine/block_pool.h"

#include <bit>

#include <xxhash.h>

#include "ttpu/base/error.h"

namespace ttpu::engine {

BlockHash chain_hash(const BlockHash& parent, std::span<const int32_t> tokens) {
  const XXH128_hash_t hash =
      XXH3_128bits_withSeed(tokens.data(), tokens.size_bytes(), parent.low ^ parent.high);
  // The seed alone has 64 bits; the parent goes into both halves.
  const uint64_t parts[4] = {parent.low, parent.high, hash.low64, hash.high64};
  const XXH128_hash_t chained = XXH3_128bits(parts, sizeof(parts));
  return {chained.low64, chained.high64};
}

BlockHash salt_hash(std::string_view salt) {
  if (salt.empty()) return {};
  const XXH128_hash_t hash = XXH3_128bits(salt.data(), salt.size());
  return {hash.low64, hash.high64};
}

BlockPool::BlockPool(int64_t blocks)
    : blocks_(static_cast<size_t>(blocks)),
      buckets_(std::bit_ceil(static_cast<size_t>(2 * blocks)), kNone) {
  require(blocks > 0, "[cache] a pool of {} blocks; at least one is needed", blocks);
  for (int32_t block = 0; block < blocks; ++block) link(block, true);
}

void BlockPool::link(int32_t block, bool last) {
  Block& entry = at(block);
  entry.previous = last ? last_ : kNone;
  entry.next = last ? kNone : first_;
  (entry.previous == kNone ? first_ : at(entry.previous).next) = block;
  (entry.next == kNone ? last_ : at(entry.next).previous) = block;
  ++free_;
}

void BlockPool::unlink(int32_t block) {
  Block& entry = at(block);
  (entry.previous == kNone ? first_ : at(entry.previous).next) = entry.next;
  (entry.next == kNone ? last_ : at(entry.next).previous) = entry.previous;
  --free_;
}

std::optional<int32_t> BlockPool::find(const BlockHash& hash) const {
  int32_t block = buckets_[hash.low & (buckets_.size() - 1)];
  while (block != kNone && at(block).hash != hash) block = at(block).chain;
  if (block == kNone) return std::nullopt;
  return block;
}

void BlockPool::forget(int32_t block) {
  Block& entry = at(block);
  if (!entry.published) return;
  int32_t* link = &bucket(entry.hash);
  while (*link != block) link = &at(*link).chain;
  *link = entry.chain;
  entry.published = false;
}

int32_t BlockPool::take() {
  if (free_ == 0) {
    fail(Code::kResourceExhausted, "[cache] all {} blocks are in use", blocks_.size());
  }
  const int32_t block = first_;
  unlink(block);
  forget(block);
  at(block).references = 1;
  return block;
}

void BlockPool::share(int32_t block) {
  if (at(block).references++ == 0) unlink(block);
}

void BlockPool::release(int32_t block) {
  Block& entry = at(block);
  require(entry.references > 0, "[cache] block {} was released once too often", block);
  // A block that holds nothing of use is taken before all others.
  if (--entry.references == 0) link(block, entry.published);
}

void BlockPool::publish(int32_t block, const BlockHash& hash) {
  Block& entry = at(block);
  require(entry.references > 0, "[cache] block {} is published without being held", block);
  if (entry.published || find(hash)) return;
  entry.hash = hash;
  entry.published = true;
  entry.chain = bucket(hash);
  bucket(hash) = block;
}

}  // namespace ttpu::engine
