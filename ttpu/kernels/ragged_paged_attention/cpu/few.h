// Few rows for each key head (decode): keys and values are read once, where they lie in the cache,
// all key heads of some positions before the next positions.
#pragma once

#include "ttpu/kernels/ragged_paged_attention/cpu/encoded.h"

namespace ttpu::kernels::cpu {
namespace {

constexpr int kRowsAtOnce = 4;

struct Few {
  int64_t rows;  // of one key head: (token, head of the group)
  int64_t heads;
  int64_t key_padded, value_padded;
  ScoreScale scale;
  float* q;       // [heads, rows, key_padded], as the reader wants it
  float* sums;    // [heads, rows, value_padded], as the reader wants it
  float* most;    // [heads, rows]
  float* total;   // [heads, rows]
  float* scores;  // [kRowsAtOnce, kKvBlock]: then the weights
  char* block;    // a head's keys, then its values, decoded
};

// The keys (or values) of one head at up to kKvBlock positions.
struct Rows {
  const char* at[kKvBlock];
  int64_t count = 0;

  void move(int64_t bytes) {
    for (int64_t j = 0; j < count; ++j) at[j] += bytes;
  }
};

// Asks for the next positions while these are worked on, in the order of their addresses: several
// heads' rows lie too far apart for the processor to foresee which come next.
class Prefetcher {
 public:
  Prefetcher(const Rows& rows, int64_t row_bytes) : rows_(rows), row_bytes_(row_bytes) {}
  void restart() { row_ = offset_ = 0; }
  void ask(int64_t bytes) {
    for (; bytes > 0 && row_ < rows_.count; bytes -= 64) {
      __builtin_prefetch(rows_.at[row_] + offset_, 0, 2);
      offset_ += 64;
      if (offset_ < row_bytes_) continue;
      offset_ = 0;
      ++row_;
    }
  }
  // What one position of one head costs, half of it in the keys' loop, half in the values'.
  int64_t share = 0;

 private:
  const Rows& rows_;
  int64_t row_bytes_;
  int64_t row_ = 0, offset_ = 0;
};

// Reads f32 or bf16 and computes in f32. PairReader (AVX512) multiplies pairs of bf16.
struct PlainReader {
  static constexpr bool kRough = false;

  static void put_q(const Attention& c, const void* from, int64_t padded, float* to) {
    expand(from, c.dtype, c.key_dim, padded, to);
  }
  static VecF read(const char* from, DType dtype, int64_t index) {
    if (dtype == DType::kF32) return load<VecF>(from + index * 4);
    const VecU bits = __builtin_convertvector(load<VecH>(from + index * 2), VecU) << 16;
    return load<VecF>(&bits);
  }
  static VecF read_some(const char* from, DType dtype, int64_t index, int64_t count) {
    float values[kLanes];
    expand(element_at(from, dtype, index), dtype, count, kLanes, values);
    return load<VecF>(values);
  }

  // scores [R, kKvBlock]
  template <int R>
  static void scores(const Attention& c, const Few& f, const float* q, const Rows& keys,
                     Prefetcher& ahead, float* scores) {
    const int64_t whole = c.key_dim / kLanes * kLanes;
    VecF sums[R][kLanes];
    for (int64_t j = 0; j < round_up(keys.count, kLanes); ++j) {
      VecF sum[R] = {};
      const char* key_at = keys.at[j < keys.count ? j : keys.count - 1];
      ahead.ask(ahead.share);
      for (int64_t d = 0; d < c.key_dim; d += kLanes) {
        const VecF key = d < whole ? read(key_at, c.cache_dtype, d)
                                   : read_some(key_at, c.cache_dtype, d, c.key_dim - d);
        for (int r = 0; r < R; ++r) sum[r] += key * load<VecF>(q + r * f.key_padded + d);
      }
      for (int r = 0; r < R; ++r) sums[r][j % kLanes] = sum[r];
      if (j % kLanes < kLanes - 1) continue;
      for (int r = 0; r < R; ++r) {
        store(scores + r * kKvBlock + j - (kLanes - 1), sums_of(sums[r]));
      }
    }
  }

  // sums [R, value_padded] = shrink * sums + weights [R, kKvBlock] x values
  template <int R>
  static void add_values(const Attention& c, const Few& f, const float* weights,
                         const float* shrink, const Rows& values, Prefetcher& ahead, float* sums) {
    for (int64_t d = 0; d < c.value_dim; d += kLanes) {
      VecF sum[R];
      for (int r = 0; r < R; ++r) sum[r] = load<VecF>(sums + r * f.value_padded + d) * shrink[r];
      const int64_t left = c.value_dim - d;
      for (int64_t j = 0; j < values.count; ++j) {
        if (d == 0) ahead.ask(ahead.share);
        const VecF value = left >= kLanes ? read(values.at[j], c.cache_dtype, d)
                                          : read_some(values.at[j], c.cache_dtype, d, left);
        for (int r = 0; r < R; ++r) sum[r] += value * weights[r * kKvBlock + j];
      }
      for (int r = 0; r < R; ++r) store(sums + r * f.value_padded + d, sum[r]);
    }
  }

  // Brings finished sums into the order of the output.
  static void finish(const Few&, float*) {}
};

// A row's scores become weights; gives the factor of the earlier sums.
template <typename Reader>
float soften_row(const Attention& c, const Few& f, float* scores, int64_t first, int64_t last,
                 float& most, float& total) {
  VecI lane;
  for (int i = 0; i < kLanes; ++i) lane[i] = i;
  const int64_t end = round_up(last, kLanes);
  VecF high = all(kLowest);
  for (int64_t j = first / kLanes * kLanes; j < end; j += kLanes) {
    VecF v = load<VecF>(scores + j);
    if (f.scale.mapped) v = mapped_score(c, v);
    const VecI at = lane + static_cast<int32_t>(j);
    v = (at >= static_cast<int32_t>(first)) & (at < static_cast<int32_t>(last)) ? v : all(kLowest);
    store(scores + j, v);
    high = larger(v, high);
  }
  float top = largest_of(high) * f.scale.factor;
  top = top > most ? top : most;
  const float shrink = exp2_of(all(most - top))[0];
  VecF sum{};
  for (int64_t j = 0; j < kKvBlock; j += kLanes) {
    VecF w{};
    if (j + kLanes > first && j < end) {
      const VecF v = load<VecF>(scores + j);
      w = exp2_of<Reader::kRough>(v * f.scale.factor - top);
      w = v > kLowest ? w : VecF{};
    }
    store(scores + j, w);
    sum += w;
  }
  most = top;
  total = total * shrink + sum_of(sum);
  return shrink;
}

// R rows from `row` on (of all heads' rows), whose keys and values are given.
template <typename Reader, int R>
void block_of_few(const Attention& c, const AttentionItem& item, Few& f, int64_t row, int64_t begin,
                  const Rows& keys, const Rows& values, Prefetcher& ahead) {
  Reader::template scores<R>(c, f, f.q + row * f.key_padded, keys, ahead, f.scores);
  float shrink[R];
  for (int r = 0; r < R; ++r) {
    const int64_t position = item.position + (row + r) % f.rows / groups_of(c) - begin;
    int64_t first = 0, last = keys.count;  // seen: [first, last) of the block
    if (c.causal && position + 1 < last) last = position + 1 > 0 ? position + 1 : 0;
    if (c.window > 0 && position - c.window + 1 > 0) first = position - c.window + 1;
    if (first > last) first = last;
    shrink[r] = soften_row<Reader>(c, f, f.scores + r * kKvBlock, first, last, f.most[row + r],
                                   f.total[row + r]);
  }
  Reader::template add_values<R>(c, f, f.scores, shrink, values, ahead,
                                 f.sums + row * f.value_padded);
}

template <typename Reader>
void rows_of_head(const Attention& c, const AttentionItem& item, Few& f, int64_t head,
                  int64_t begin, const Rows& keys, const Rows& values, Prefetcher& ahead) {
  const int64_t end = (head + 1) * f.rows;
  for (int64_t row = head * f.rows; row < end; row += kRowsAtOnce) {
    const int64_t left = end - row;
    if (left >= 4) block_of_few<Reader, 4>(c, item, f, row, begin, keys, values, ahead);
    if (left == 3) block_of_few<Reader, 3>(c, item, f, row, begin, keys, values, ahead);
    if (left == 2) block_of_few<Reader, 2>(c, item, f, row, begin, keys, values, ahead);
    if (left == 1) block_of_few<Reader, 1>(c, item, f, row, begin, keys, values, ahead);
  }
}

template <typename Reader>
Few make_few(const Attention& c, const AttentionItem& item) {
  Few f{};
  f.rows = item.tokens * groups_of(c);
  f.heads = item.head_end - item.head_begin;
  f.key_padded = round_up(c.key_dim, 32);
  f.value_padded = round_up(c.value_dim, 32);
  f.scale = score_scale(c);
  const int64_t rows = f.heads * f.rows;
  auto* at = thread_scratch_of<float>(0, rows * (f.key_padded + f.value_padded) +
                                             2 * round_up(rows, 16) + kRowsAtOnce * kKvBlock +
                                             kKvBlock * (f.key_padded + f.value_padded));
  const auto take = [&at](int64_t size) {
    float* from = at;
    at += size;
    return from;
  };
  f.scores = take(kRowsAtOnce * kKvBlock);
  f.q = take(rows * f.key_padded);
  f.sums = take(rows * f.value_padded);
  f.most = take(round_up(rows, 16));
  f.total = take(round_up(rows, 16));
  f.block = reinterpret_cast<char*>(take(kKvBlock * (f.key_padded + f.value_padded)));
  std::memset(f.sums, 0, static_cast<size_t>(rows * f.value_padded) * sizeof(float));
  for (int64_t row = 0; row < rows; ++row) {
    const RowPlace place = place_of(c, item, row);
    Reader::put_q(c, element_at(c.q, c.dtype, (place.token * c.q_heads + place.head) * c.key_dim),
                  f.key_padded, f.q + row * f.key_padded);
    f.most[row] = kLowest;
    f.total[row] = 0;
  }
  return f;
}

inline void find_rows(const Attention& c, const AttentionItem& item, int64_t begin, Rows& rows) {
  const int64_t left = item.kv_end - begin;
  rows.count = left < 0 ? 0 : left < kKvBlock ? left : kKvBlock;
  for (int64_t j = 0; j < rows.count; ++j) {
    rows.at[j] = cache_at(c, item.sequence, begin + j, item.head_begin);
  }
}

// Moves keys and values to where they are decoded.
inline void decode_block(const Attention& c, const Few& f, Rows& keys, Rows& values) {
  const int64_t key_size = f.key_padded * size_of(c.dtype);
  const int64_t value_size = f.value_padded * size_of(c.dtype);
  for (int64_t j = 0; j < keys.count; ++j) {
    char* key = f.block + j * key_size;
    char* value = f.block + kKvBlock * key_size + j * value_size;
    decode_pair(c, keys.at[j], key, value);
    keys.at[j] = key;
    values.at[j] = value;
  }
}

template <typename Reader>
void run_few(const Attention& c, const AttentionItem& item) {
  const Attention plain = decoded(c);
  const int64_t size = size_of(c.cache_dtype);
  const int64_t heads = item.head_end - item.head_begin;
  const int64_t row_bytes = (heads * c.head_stride + (c.head_stride == 0 ? c.width : 0)) * size;
  Rows next;
  Prefetcher ahead(next, row_bytes);
  find_rows(c, item, item.kv_begin, next);
  ahead.ask(next.count * row_bytes);
  ahead.share = row_bytes / (2 * heads);
  Few f = make_few<Reader>(c, item);
  for (int64_t begin = item.kv_begin; begin < item.kv_end; begin += kKvBlock) {
    Rows keys = next, values = next;
    values.move(c.value_offset * size);
    find_rows(c, item, begin + kKvBlock, next);
    ahead.restart();
    for (int64_t head = 0; head < f.heads; ++head) {
      if (is_encoded(c.cache_dtype)) {
        Rows decoded_keys = keys, decoded_values = values;
        decode_block(c, f, decoded_keys, decoded_values);
        rows_of_head<Reader>(plain, item, f, head, begin, decoded_keys, decoded_values, ahead);
      } else {
        rows_of_head<Reader>(c, item, f, head, begin, keys, values, ahead);
      }
      keys.move(c.head_stride * size);
      values.move(c.head_stride * size);
    }
  }
  for (int64_t row = 0; row < f.heads * f.rows; ++row) {
    float* sums = f.sums + row * f.value_padded;
    Reader::finish(f, sums);
    leave_row(c, item, row, f.most[row], f.total[row], sums);
  }
}

}  // namespace
}  // namespace ttpu::kernels::cpu
