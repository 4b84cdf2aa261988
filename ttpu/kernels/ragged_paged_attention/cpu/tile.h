// A tile of many rows: scores are computed as keys x queries, so that positions run down and rows
// lie in the lanes of vectors; then maxima and sums over positions need no exchange of lanes, the
// keys need no transposing, and the weights come out as the product with the values wants them.
#pragma once

#include "ttpu/kernels/ragged_paged_attention/cpu/encoded.h"
#include "ttpu/kernels/ragged_paged_attention/cpu/product.h"

namespace ttpu::kernels::cpu {
namespace {

constexpr int64_t kGroupRows = kGroupVectors * kLanes;

// The state of a tile of one key head. Rows are (token, head of the group) in groups of kGroupRows,
// the last one padded. Words are f32, or pairs of bf16 (of a key, or of two positions).
struct Tile {
  int64_t groups, rows, padded_rows;
  int64_t key_words, value_padded;
  ScoreScale scale;
  uint32_t* q;        // [row groups, key_words, kGroupRows]
  float* sums;        // [padded_rows, value_padded]
  float* most;        // [padded_rows]
  float* total;       // [padded_rows]
  float* shrink;      // [padded_rows]
  int32_t* position;  // [padded_rows]
  float* scores;      // [kKvBlock, kGroupRows]
  uint32_t* weights;  // [depth, kGroupRows]
  uint32_t* keys;     // [kKvBlock, key_words]
  uint32_t* values;   // [depth, value_padded]
  char* block;        // a key, then values, decoded
};

// How f32 words are packed; PairPacking (AVX512) is the same for pairs of bf16.
struct PlainPacking {
  using Words = PlainWords;
  static constexpr bool kRough = false;
  static constexpr int64_t kPositions = 1;  // of a word of weights or values
  static int64_t key_words(const Attention& c) { return c.key_dim; }
  static void pack_q(const Attention& c, const void* from, uint32_t* to) {
    expand(from, c.dtype, c.key_dim, c.key_dim, reinterpret_cast<float*>(to));
  }
  static void pack_key(const Attention& c, const char* from, uint32_t* to) {
    expand(from, c.cache_dtype, c.key_dim, c.key_dim, reinterpret_cast<float*>(to));
  }
  static void pack_values(const Attention& c, const char* const* rows, int64_t, int64_t padded,
                          uint32_t* to) {
    expand(rows[0], c.cache_dtype, c.value_dim, padded, reinterpret_cast<float*>(to));
  }
  static void put_weights(const VecF* weights, uint32_t* to) { store(to, weights[0]); }
};

template <typename Packing>
void pack_block(const Attention& c, const AttentionItem& item, Tile& t, int64_t begin,
                int64_t count) {
  const char* values[kKvBlock];
  const Attention plain = decoded(c);
  for (int64_t j = 0; j < count; ++j) {
    const char* key = cache_at(c, item.sequence, begin + j, item.head_begin);
    values[j] = element_at(key, c.cache_dtype, c.value_offset);
    if (is_encoded(c.cache_dtype)) {
      char* value = t.block + (c.key_dim + j * c.value_dim) * size_of(c.dtype);
      decode_pair(c, key, t.block, value);
      key = t.block;
      values[j] = value;
    }
    Packing::pack_key(plain, key, t.keys + j * t.key_words);
  }
  const int64_t size = size_of(c.cache_dtype);
  for (int64_t j = begin + kKvBlock; j < begin + 2 * kKvBlock && j < item.kv_end; ++j) {
    const char* next = cache_at(c, item.sequence, j, item.head_begin);
    for (int64_t i = 0; i < (c.value_offset + c.value_dim) * size; i += 64) {
      __builtin_prefetch(next + i, 0, 2);
    }
  }
  const int64_t padding = round_up(count, kScoreRows) - count;
  std::memset(t.keys + count * t.key_words, 0,
              static_cast<size_t>(padding * t.key_words) * sizeof(uint32_t));
  for (int64_t j = 0; j < count; j += Packing::kPositions) {
    Packing::pack_values(plain, values + j, count - j, t.value_padded,
                         t.values + j / Packing::kPositions * t.value_padded);
  }
}

// Some rows of a tile and what of a block they see.
struct Part {
  int64_t first;  // row
  int64_t rows;   // without padding
  int64_t begin;  // position of the block
  int64_t count;  // of positions that any of the rows sees
  bool masked;    // some row does not see all of them
};

template <typename Words, int N>
void score_product(const Tile& t, const Part& part) {
  const uint32_t* q = t.q + part.first / kGroupRows * t.key_words * kGroupRows;
  column_product<Words, kScoreRows, N, true, true>({t.keys, t.key_words},
                                                   round_up(part.count, kScoreRows), t.key_words,
                                                   {q, kGroupRows}, t.scores, kGroupRows);
}

template <typename Words>
void value_product(const Tile& t, const Part& part, int64_t depth) {
  const Operand weights{t.weights, kGroupRows};
  const int64_t rows = round_up(part.rows, kSumRows);
  float* sums = t.sums + part.first * t.value_padded;
  int64_t d = 0;
  for (; d + kSumColumns * kLanes <= t.value_padded; d += kSumColumns * kLanes) {
    column_product<Words, kSumRows, kSumColumns, false, false>(
        weights, rows, depth, {t.values + d, t.value_padded}, sums + d, t.value_padded);
  }
  for (; d < t.value_padded; d += kLanes) {
    column_product<Words, kSumRows, 1, false, false>(
        weights, rows, depth, {t.values + d, t.value_padded}, sums + d, t.value_padded);
  }
}

// Scores that no row's mask hides keep their value, the others become kLowest.
inline void hide(const Attention& c, const Tile& t, const Part& part, int64_t vector) {
  const VecI row =
      load<VecI>(t.position + part.first + vector * kLanes) - static_cast<int32_t>(part.begin);
  const VecI last = c.causal ? row : all(static_cast<int32_t>(kKvBlock));
  const VecI first = c.window > 0 ? row - static_cast<int32_t>(c.window) : all(-1);
  for (int64_t j = 0; j < part.count; ++j) {
    float* at = t.scores + j * kGroupRows + vector * kLanes;
    const VecI here = all(static_cast<int32_t>(j));
    store(at, (here <= last) & (here > first) ? load<VecF>(at) : all(kLowest));
  }
}

// Online softmax of a vector of rows over the part's positions; gives true when earlier sums
// shrink.
template <typename Packing, bool kMasked>
bool soften(const Attention& c, const Tile& t, const Part& part, int64_t vector) {
  float* scores = t.scores + vector * kLanes;
  if (t.scale.mapped) {
    for (int64_t j = 0; j < part.count; ++j) {
      store(scores + j * kGroupRows, mapped_score(c, load<VecF>(scores + j * kGroupRows)));
    }
  }
  if constexpr (kMasked) hide(c, t, part, vector);
  VecF high = load<VecF>(scores);
  for (int64_t j = 1; j < part.count; ++j) high = larger(load<VecF>(scores + j * kGroupRows), high);
  const int64_t row = part.first + vector * kLanes;
  const VecF before = load<VecF>(t.most + row);
  high = larger(high * t.scale.factor, before);
  const VecF shrink = exp2_of(before - high);
  VecF total{};
  const auto weight = [&](int64_t j) {
    const VecF score = load<VecF>(scores + j * kGroupRows);
    VecF w = exp2_of<Packing::kRough>(score * t.scale.factor - high);
    if constexpr (kMasked) w = score > kLowest ? w : VecF{};
    total += w;
    return w;
  };
  uint32_t* weights = t.weights + vector * kLanes;
  constexpr int64_t kStep = Packing::kPositions;
  int64_t j = 0;
  for (; j + kStep <= part.count; j += kStep) {
    VecF pair[kStep];
    for (int64_t i = 0; i < kStep; ++i) pair[i] = weight(j + i);
    Packing::put_weights(pair, weights + j / kStep * kGroupRows);
  }
  if (j < part.count) {
    VecF pair[kStep] = {};
    pair[0] = weight(j);
    Packing::put_weights(pair, weights + j / kStep * kGroupRows);
  }
  store(t.total + row, load<VecF>(t.total + row) * shrink + total);
  store(t.most + row, high);
  store(t.shrink + row, shrink);
  return sum_of(shrink) < static_cast<float>(kLanes);
}

template <typename Packing>
void part_of_block(const Attention& c, Tile& t, const Part& part) {
  using Words = typename Packing::Words;
  const int64_t vectors = (part.rows + kLanes - 1) / kLanes;
  if (vectors == 1) score_product<Words, 1>(t, part);
  if (vectors == 2) score_product<Words, 2>(t, part);
  if (vectors == 3) score_product<Words, 3>(t, part);
  bool shrinks = false;
  for (int64_t v = 0; v < vectors; ++v) {
    shrinks |=
        part.masked ? soften<Packing, true>(c, t, part, v) : soften<Packing, false>(c, t, part, v);
  }
  if (shrinks) {
    for (int64_t row = part.first; row < part.first + part.rows; ++row) {
      float* sums = t.sums + row * t.value_padded;
      const float factor = t.shrink[row];
      for (int64_t d = 0; d < t.value_padded; d += kLanes) {
        store(sums + d, load<VecF>(sums + d) * factor);
      }
    }
  }
  value_product<Words>(t, part, (part.count + Packing::kPositions - 1) / Packing::kPositions);
}

template <typename Packing>
void block_of_many(const Attention& c, const AttentionItem& item, Tile& t, int64_t begin,
                   int64_t count) {
  pack_block<Packing>(c, item, t, begin, count);
  for (int64_t first = 0; first < t.rows; first += kGroupRows) {
    Part part{first, t.rows - first < kGroupRows ? t.rows - first : kGroupRows, begin, count,
              false};
    const int64_t early = t.position[first], late = t.position[first + part.rows - 1];
    if (c.causal) {
      if (late + 1 - begin < part.count) part.count = late + 1 - begin;
      part.masked = begin + part.count - 1 > early;
    }
    if (c.window > 0) {
      if (begin + part.count <= early - c.window + 1) continue;  // out of everyone's window
      part.masked |= begin <= late - c.window;
    }
    if (part.count > 0) part_of_block<Packing>(c, t, part);
  }
}

template <typename Packing>
Tile make_tile(const Attention& c, const AttentionItem& item) {
  Tile t{};
  t.groups = groups_of(c);
  t.rows = item.tokens * t.groups;
  t.padded_rows = round_up(t.rows, kGroupRows);
  t.key_words = Packing::key_words(c);
  t.value_padded = round_up(c.value_dim, kLanes);
  t.scale = score_scale(c);
  const int64_t sizes[] = {kKvBlock * t.key_words,
                           kKvBlock * t.value_padded,
                           t.padded_rows * t.key_words,
                           t.padded_rows * t.value_padded,
                           kKvBlock * kGroupRows,
                           kKvBlock * kGroupRows,
                           t.padded_rows,
                           t.padded_rows,
                           t.padded_rows,
                           t.padded_rows,
                           is_encoded(c.cache_dtype) ? c.key_dim + kKvBlock * c.value_dim : 0};
  int64_t all_of_them = 0;
  for (const int64_t size : sizes) all_of_them += round_up(size, 16);
  auto* at = thread_scratch_of<uint32_t>(0, all_of_them);
  const int64_t* size = sizes;
  const auto take = [&] {
    uint32_t* from = at;
    at += round_up(*size++, 16);
    return from;
  };
  t.keys = take();
  t.values = take();
  t.q = take();
  t.sums = reinterpret_cast<float*>(take());
  t.scores = reinterpret_cast<float*>(take());
  t.weights = take();
  t.most = reinterpret_cast<float*>(take());
  t.total = reinterpret_cast<float*>(take());
  t.shrink = reinterpret_cast<float*>(take());
  t.position = reinterpret_cast<int32_t*>(take());
  t.block = reinterpret_cast<char*>(take());
  return t;
}

template <typename Packing>
void begin_tile(const Attention& c, const AttentionItem& item, Tile& t) {
  std::memset(t.sums, 0, static_cast<size_t>(t.padded_rows * t.value_padded) * sizeof(float));
  // Rows of padding meet weights that nothing set: let them be numbers.
  std::memset(t.weights, 0, static_cast<size_t>(kKvBlock * kGroupRows) * sizeof(uint32_t));
  uint32_t* packed = t.keys;  // free until the first block
  for (int64_t row = 0; row < t.padded_rows; ++row) {
    const int64_t real = row < t.rows ? row : t.rows - 1;
    const RowPlace place = place_of(c, item, real);
    uint32_t* q = t.q + row / kGroupRows * t.key_words * kGroupRows + row % kGroupRows;
    Packing::pack_q(c, element_at(c.q, c.dtype, (place.token * c.q_heads + place.head) * c.key_dim),
                    packed);
    for (int64_t w = 0; w < t.key_words; ++w) q[w * kGroupRows] = packed[w];
    t.most[row] = kLowest;
    t.total[row] = 0;
    t.position[row] = static_cast<int32_t>(item.position + real / t.groups);
  }
}

// Items of one key head.
template <typename Packing>
void run_tile(const Attention& c, const AttentionItem& item) {
  Tile t = make_tile<Packing>(c, item);
  begin_tile<Packing>(c, item, t);
  for (int64_t begin = item.kv_begin; begin < item.kv_end; begin += kKvBlock) {
    const int64_t left = item.kv_end - begin;
    block_of_many<Packing>(c, item, t, begin, left < kKvBlock ? left : kKvBlock);
  }
  for (int64_t row = 0; row < t.rows; ++row) {
    leave_row(c, item, row, t.most[row], t.total[row], t.sums + row * t.value_padded);
  }
}

}  // namespace
}  // namespace ttpu::kernels::cpu
