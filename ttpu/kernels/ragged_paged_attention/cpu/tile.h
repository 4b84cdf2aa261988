// One tile of attention, written with the compiler's vector types: each instruction set includes
// this file and gets code of its own (internal linkage).
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "ttpu/kernels/cpu/scratch.h"
#include "ttpu/kernels/ragged_paged_attention/cpu/isa_attention.h"

namespace ttpu::kernels::cpu {
namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16, kRowBlock = 6, kColumns = 4;
#elif defined(__AVX2__)
constexpr int kLanes = 8, kRowBlock = 5, kColumns = 2;
#else
constexpr int kLanes = 4, kRowBlock = 4, kColumns = 2;
#endif
constexpr int64_t kFewRows = 4;  // so few rows are not worth packing keys for
constexpr float kLowest = -1e30f;

typedef float VecF __attribute__((vector_size(kLanes * sizeof(float))));
typedef int32_t VecI __attribute__((vector_size(kLanes * sizeof(float))));
typedef uint32_t VecU __attribute__((vector_size(kLanes * sizeof(float))));
typedef uint16_t VecH __attribute__((vector_size(kLanes * sizeof(uint16_t))));

template <typename V>
inline V load(const void* from) {
  V value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
template <typename V>
inline void store(void* to, V value) {
  std::memcpy(to, &value, sizeof value);
}
inline VecF all(float x) { return x - VecF{}; }
inline float sum_of(VecF v) {
  float sum = 0;
  for (int i = 0; i < kLanes; ++i) sum += v[i];
  return sum;
}
inline VecF larger(VecF a, VecF b) { return a > b ? a : b; }
inline VecF smaller(VecF a, VecF b) { return a < b ? a : b; }
inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// e^x to about 2 ulp for x <= 0, and 0 below -87.
inline VecF exp_of(VecF x) {
  const VecF inside = larger(smaller(x, all(88.f)), all(-87.f));
  const VecF magic = all(12582912.f);  // 1.5 * 2^23: adding it rounds to an integer
  const VecF n = (inside * 1.44269504f + magic) - magic;
  const VecF r = (inside - n * 0.693359375f) + n * 2.12194440e-4f;
  VecF p = all(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.f;
  const VecI power = (__builtin_convertvector(n, VecI) + 127) << 23;
  const VecF result = p * load<VecF>(&power);
  return x > -87.f ? result : VecF{};
}

inline float float_of(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}
inline uint16_t half_of(float value) {  // finite values; NaN stays NaN
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// `count` elements as f32, the rest up to `padded` 0.
inline void expand(const void* from, DType dtype, int64_t count, int64_t padded, float* to) {
  int64_t i = 0;
  if (dtype == DType::kF32) {
    std::memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
    i = count;
  } else {
    const auto* half = static_cast<const uint16_t*>(from);
    for (; i + kLanes <= count; i += kLanes) {
      store(to + i, __builtin_convertvector(load<VecH>(half + i), VecU) << 16);
    }
    for (; i < count; ++i) to[i] = float_of(half[i]);
  }
  for (; i < padded; ++i) to[i] = 0;
}

inline const char* element_at(const void* base, DType dtype, int64_t index) {
  return static_cast<const char*>(base) + index * (dtype == DType::kF32 ? 4 : 2);
}

inline const char* cache_at(const Attention& c, const AttentionItem& item, int64_t position) {
  const int32_t page =
      c.page_indices[item.sequence * c.pages_per_sequence + position / c.page_size];
  const int64_t row = page * c.page_size + position % c.page_size;
  return element_at(c.cache, c.cache_dtype, row * c.width + item.kv_head * c.head_stride);
}

// Products of 32-bit words: one f32, or (AVX512) two bf16.
struct PlainWords {
  static VecF multiply_add(VecF sum, uint32_t a, VecF b) {
    float value;
    std::memcpy(&value, &a, sizeof value);
    return sum + value * b;
  }
};

// C[rows][columns] += A[rows][depth] B[depth][columns]: kRowBlock rows, N vectors of columns.
template <typename Words, int N>
inline void block_product(const uint32_t* a, int64_t a_stride, int64_t depth, const float* b,
                          int64_t b_stride, float* c, int64_t c_stride) {
  VecF sums[kRowBlock][N];
#pragma GCC unroll 8
  for (int i = 0; i < kRowBlock; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) sums[i][j] = load<VecF>(c + i * c_stride + j * kLanes);
  }
  for (int64_t k = 0; k < depth; ++k) {
    VecF row[N];
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) row[j] = load<VecF>(b + k * b_stride + j * kLanes);
#pragma GCC unroll 8
    for (int i = 0; i < kRowBlock; ++i) {
#pragma GCC unroll 8
      for (int j = 0; j < N; ++j) {
        sums[i][j] = Words::multiply_add(sums[i][j], a[i * a_stride + k], row[j]);
      }
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRowBlock; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) store(c + i * c_stride + j * kLanes, sums[i][j]);
  }
}

// Rows are a multiple of kRowBlock, columns of kLanes.
template <typename Words>
void product(const uint32_t* a, int64_t a_stride, int64_t rows, int64_t depth, const float* b,
             int64_t columns, float* c) {
  for (int64_t j = 0; j < columns;) {
    const bool wide = columns - j >= kColumns * kLanes;
    for (int64_t i = 0; i < rows; i += kRowBlock) {
      const uint32_t* a_rows = a + i * a_stride;
      float* c_block = c + i * columns + j;
      if (wide) {
        block_product<Words, kColumns>(a_rows, a_stride, depth, b + j, columns, c_block, columns);
      } else {
        block_product<Words, 1>(a_rows, a_stride, depth, b + j, columns, c_block, columns);
      }
    }
    j += wide ? kColumns * kLanes : kLanes;
  }
}

// The state of a tile; rows are (token, head of the group).
struct Tile {
  int64_t rows, padded_rows, groups;
  int64_t key_words, key_padded;  // words of a row of q; elements of a row of q as f32
  int64_t value_padded;
  uint32_t* q;        // [padded_rows, key_words] or, for few rows, f32 [rows, key_padded]
  float* scores;      // [padded_rows, kKvBlock]
  uint32_t* weights;  // [padded_rows, kKvBlock] words, filled from scores
  float* sums;        // [padded_rows, value_padded]
  float* most;        // [rows]
  float* total;       // [rows]
  float* keys;        // packed block
  float* values;      // packed block
};

inline const void* q_row(const Attention& c, const AttentionItem& item, int64_t row,
                         int64_t groups) {
  const int64_t token = item.token + row / groups;
  const int64_t head = item.kv_head * groups + row % groups;
  return element_at(c.q, c.dtype, (token * c.q_heads + head) * c.key_dim);
}

// The scores of one row over a block: scale, soft cap, mask, online softmax. Returns how the row's
// earlier sums shrink.
inline float soften(const Attention& c, const AttentionItem& item, Tile& t, int64_t row,
                    int64_t begin, int64_t count) {
  float* scores = t.scores + row * kKvBlock;
  const int64_t position = item.position + row / t.groups;
  int64_t last = count;  // positions begin + [first, last) are seen
  int64_t first = 0;
  if (c.causal && position + 1 - begin < last) last = position + 1 - begin;
  if (c.window > 0 && position - c.window + 1 > begin) first = position - c.window + 1 - begin;
  VecF most = all(kLowest);
  for (int64_t j = 0; j < kKvBlock; j += kLanes) {
    VecF v = load<VecF>(scores + j) * c.scale;
    if (c.soft_cap > 0) v = (1.f - 2.f / (exp_of(v * (2.f / c.soft_cap)) + 1.f)) * c.soft_cap;
    if (j < first || j + kLanes > last) {
      for (int i = 0; i < kLanes; ++i) {
        if (j + i < first || j + i >= last) v[i] = kLowest;
      }
    }
    store(scores + j, v);
    most = larger(most, v);
  }
  float high = t.most[row];
  for (int i = 0; i < kLanes; ++i) high = most[i] > high ? most[i] : high;
  const float shrink = exp_of(all(t.most[row] - high))[0];
  t.most[row] = high;
  VecF total{};
  for (int64_t j = 0; j < kKvBlock; j += kLanes) {
    const VecF v = load<VecF>(scores + j);
    const VecF weight = v > kLowest ? exp_of(v - high) : VecF{};
    store(scores + j, weight);
    total += weight;
  }
  t.total[row] = t.total[row] * shrink + sum_of(total);
  return shrink;
}

inline void shrink_row(Tile& t, int64_t row, float shrink) {
  if (shrink == 1.f) return;
  float* sums = t.sums + row * t.value_padded;
  for (int64_t d = 0; d < t.value_padded; d += kLanes)
    store(sums + d, load<VecF>(sums + d) * shrink);
}

// Straight from the cache: for few rows.
void block_of_few(const Attention& c, const AttentionItem& item, Tile& t, int64_t begin,
                  int64_t count) {
  const auto* q = reinterpret_cast<const float*>(t.q);
  std::memset(t.scores, 0, static_cast<size_t>(t.rows * kKvBlock) * sizeof(float));
  for (int64_t j = 0; j < count; ++j) {
    expand(cache_at(c, item, begin + j), c.cache_dtype, c.key_dim, t.key_padded, t.keys);
    for (int64_t row = 0; row < t.rows; ++row) {
      VecF sum{};
      for (int64_t d = 0; d < t.key_padded; d += kLanes) {
        sum += load<VecF>(t.keys + d) * load<VecF>(q + row * t.key_padded + d);
      }
      t.scores[row * kKvBlock + j] = sum_of(sum);
    }
  }
  for (int64_t row = 0; row < t.rows; ++row) {
    shrink_row(t, row, soften(c, item, t, row, begin, count));
  }
  for (int64_t j = 0; j < count; ++j) {
    const char* key = cache_at(c, item, begin + j);
    expand(element_at(key, c.cache_dtype, c.value_offset), c.cache_dtype, c.value_dim,
           t.value_padded, t.values);
    for (int64_t row = 0; row < t.rows; ++row) {
      const float weight = t.scores[row * kKvBlock + j];
      float* sums = t.sums + row * t.value_padded;
      for (int64_t d = 0; d < t.value_padded; d += kLanes) {
        store(sums + d, load<VecF>(sums + d) + weight * load<VecF>(t.values + d));
      }
    }
  }
}

// How f32 words are packed; PairPacking (AVX512) is the same for pairs of bf16.
struct PlainPacking {
  using Words = PlainWords;
  static int64_t key_words(const Attention& c) { return c.key_dim; }
  static int64_t value_depth() { return kKvBlock; }
  static void pack_q(const Attention& c, const void* from, uint32_t* to) {
    expand(from, c.dtype, c.key_dim, c.key_dim, reinterpret_cast<float*>(to));
  }
  // keys [key_words, kKvBlock], values [kKvBlock, value_padded].
  static void pack_block(const Attention& c, const AttentionItem& item, Tile& t, int64_t begin,
                         int64_t count) {
    float* row = t.scores;  // free until the product; of at least key_dim numbers
    for (int64_t j = 0; j < kKvBlock; ++j) {
      float* values = t.values + j * t.value_padded;
      if (j >= count) {
        for (int64_t d = 0; d < c.key_dim; ++d) t.keys[d * kKvBlock + j] = 0;
        std::memset(values, 0, static_cast<size_t>(t.value_padded) * sizeof(float));
        continue;
      }
      const char* key = cache_at(c, item, begin + j);
      expand(key, c.cache_dtype, c.key_dim, c.key_dim, row);
      for (int64_t d = 0; d < c.key_dim; ++d) t.keys[d * kKvBlock + j] = row[d];
      expand(element_at(key, c.cache_dtype, c.value_offset), c.cache_dtype, c.value_dim,
             t.value_padded, values);
    }
  }
  static const uint32_t* pack_weights(Tile& t) { return reinterpret_cast<uint32_t*>(t.scores); }
  static int64_t weights_stride() { return kKvBlock; }
};

template <typename Packing>
void block_of_many(const Attention& c, const AttentionItem& item, Tile& t, int64_t begin,
                   int64_t count) {
  using Words = typename Packing::Words;
  Packing::pack_block(c, item, t, begin, count);
  std::memset(t.scores, 0, static_cast<size_t>(t.padded_rows * kKvBlock) * sizeof(float));
  product<Words>(t.q, t.key_words, t.padded_rows, t.key_words, t.keys, kKvBlock, t.scores);
  for (int64_t row = 0; row < t.rows; ++row) {
    shrink_row(t, row, soften(c, item, t, row, begin, count));
  }
  product<Words>(Packing::pack_weights(t), Packing::weights_stride(), t.padded_rows,
                 Packing::value_depth(), t.values, t.value_padded, t.sums);
}

// One row's output from its state.
inline void finish_row(const Attention& c, const AttentionItem& item, int64_t row, float most,
                       float total, const float* sums) {
  const int64_t groups = c.q_heads / c.kv_heads;
  const int64_t head = item.kv_head * groups + row % groups;
  float factor = 1;
  if (c.sinks != nullptr) {
    const float sink = c.sinks[head];
    const float high = sink > most ? sink : most;
    factor = std::exp(most - high);
    total = total * factor + std::exp(sink - high);
  }
  factor = total > 0 ? factor / total : 0;
  const int64_t at = ((item.token + row / groups) * c.q_heads + head) * c.value_dim;
  if (c.dtype == DType::kF32) {
    float* out = static_cast<float*>(c.output) + at;
    for (int64_t d = 0; d < c.value_dim; ++d) out[d] = sums[d] * factor;
  } else {
    uint16_t* out = static_cast<uint16_t*>(c.output) + at;
    for (int64_t d = 0; d < c.value_dim; ++d) out[d] = half_of(sums[d] * factor);
  }
}

template <typename Packing>
void run_tile(const Attention& c, const AttentionItem& item) {
  Tile t{};
  t.groups = c.q_heads / c.kv_heads;
  t.rows = item.tokens * t.groups;
  const bool few = t.rows <= kFewRows;
  t.padded_rows = round_up(t.rows, kRowBlock);
  t.key_padded = round_up(c.key_dim, kLanes);
  t.key_words = few ? t.key_padded : Packing::key_words(c);
  t.value_padded = round_up(c.value_dim, kLanes);
  const int64_t tables = round_up(t.padded_rows, 16);
  const int64_t score_size = round_up(t.padded_rows * kKvBlock + c.key_dim, 16);
  auto* at =
      thread_scratch_of<float>(0, t.padded_rows * (t.key_words + t.value_padded) + 2 * score_size +
                                      2 * tables + kKvBlock * (t.key_padded + t.value_padded) + 64);
  const auto take = [&at](int64_t size) {
    float* from = at;
    at += size;
    return from;
  };
  t.keys = take(kKvBlock * t.key_padded);
  t.values = take(kKvBlock * t.value_padded);
  t.sums = take(t.padded_rows * t.value_padded);
  t.scores = take(score_size);
  t.weights = reinterpret_cast<uint32_t*>(take(score_size));
  t.most = take(tables);
  t.total = take(tables);
  t.q = reinterpret_cast<uint32_t*>(take(t.padded_rows * t.key_words));
  std::memset(t.sums, 0, static_cast<size_t>(t.padded_rows * t.value_padded) * sizeof(float));
  for (int64_t row = 0; row < t.padded_rows; ++row) {
    uint32_t* q = t.q + row * t.key_words;
    if (row >= t.rows) {
      std::memset(q, 0, static_cast<size_t>(t.key_words) * sizeof(uint32_t));
    } else if (few) {
      expand(q_row(c, item, row, t.groups), c.dtype, c.key_dim, t.key_padded,
             reinterpret_cast<float*>(q));
    } else {
      Packing::pack_q(c, q_row(c, item, row, t.groups), q);
    }
    t.most[row] = kLowest;
    t.total[row] = 0;
  }
  for (int64_t begin = item.kv_begin; begin < item.kv_end; begin += kKvBlock) {
    const int64_t left = item.kv_end - begin;
    const int64_t count = left < kKvBlock ? left : kKvBlock;
    if (few) {
      block_of_few(c, item, t, begin, count);
    } else {
      block_of_many<Packing>(c, item, t, begin, count);
    }
  }
  for (int64_t row = 0; row < t.rows; ++row) {
    const float* sums = t.sums + row * t.value_padded;
    if (item.partial == nullptr) {
      finish_row(c, item, row, t.most[row], t.total[row], sums);
      continue;
    }
    float* state = item.partial + row * state_size(c);
    std::memcpy(state, sums, static_cast<size_t>(c.value_dim) * sizeof(float));
    state[c.value_dim] = t.most[row];
    state[c.value_dim + 1] = t.total[row];
  }
}

void join_parts(const Attention& c, const AttentionItem& item, const float* states, int64_t parts) {
  const int64_t rows = item.tokens * (c.q_heads / c.kv_heads);
  const int64_t size = state_size(c);
  auto* sums = thread_scratch_of<float>(1, c.value_dim);
  for (int64_t row = 0; row < rows; ++row) {
    float most = kLowest;
    for (int64_t p = 0; p < parts; ++p) {
      const float high = states[(p * rows + row) * size + c.value_dim];
      most = high > most ? high : most;
    }
    float total = 0;
    for (int64_t d = 0; d < c.value_dim; ++d) sums[d] = 0;
    for (int64_t p = 0; p < parts; ++p) {
      const float* state = states + (p * rows + row) * size;
      const float factor = std::exp(state[c.value_dim] - most);
      total += state[c.value_dim + 1] * factor;
      for (int64_t d = 0; d < c.value_dim; ++d) sums[d] += state[d] * factor;
    }
    finish_row(c, item, row, most, total, sums);
  }
}

}  // namespace
}  // namespace ttpu::kernels::cpu
