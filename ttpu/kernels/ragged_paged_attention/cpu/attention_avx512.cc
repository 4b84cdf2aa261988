// Attention for AVX512: pairs of bf16 are multiplied at once where queries and cache are bf16.
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "ttpu/kernels/ragged_paged_attention/cpu/few.h"
#include "ttpu/kernels/ragged_paged_attention/cpu/tile.h"
#include "ttpu/kernels/ragged_paged_attention/cpu/turn.h"

#if defined(__x86_64__)

namespace ttpu::kernels::cpu {
namespace {

inline __m512 of(VecF v) { return reinterpret_cast<__m512>(v); }

inline __m512 multiply_pairs(__m512 sum, __m512i a, __m512i b) {
  return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
}

// The first `count` of 32 bf16, the rest 0.
inline __m512i load_halves(const void* from, int64_t count) {
  if (count >= 32) return _mm512_loadu_si512(from);
  return _mm512_maskz_loadu_epi16((1u << count) - 1u, from);
}

bool pairs_fit(const Attention& c) {
  return c.dtype == DType::kBF16 && decoded(c).cache_dtype == DType::kBF16 && c.key_dim % 2 == 0;
}

struct PairWords {
  static VecF multiply_add(VecF sum, uint32_t a, VecF b) {
    return reinterpret_cast<VecF>(multiply_pairs(of(sum), _mm512_set1_epi32(static_cast<int>(a)),
                                                 reinterpret_cast<__m512i>(b)));
  }
};

// Words of two neighbours from two rows: the low halves of lane i are row0[i] and row1[i].
inline __m512i interleaving(int from) {
  alignas(64) uint16_t lanes[32];
  for (int i = 0; i < 16; ++i) {
    lanes[2 * i] = static_cast<uint16_t>(from + i);
    lanes[2 * i + 1] = static_cast<uint16_t>(from + i + 32);
  }
  return _mm512_load_si512(lanes);
}

struct PairPacking {
  using Words = PairWords;
  static constexpr bool kRough = true;
  static constexpr int64_t kPositions = 2;
  static int64_t key_words(const Attention& c) { return c.key_dim / 2; }
  static void pack_q(const Attention& c, const void* from, uint32_t* to) {
    std::memcpy(to, from, static_cast<size_t>(c.key_dim) * 2);
  }
  static void pack_key(const Attention& c, const char* from, uint32_t* to) {
    int64_t d = 0;
    for (; d + 32 <= c.key_dim; d += 32) store(to + d / 2, _mm512_loadu_si512(from + d * 2));
    if (d < c.key_dim) {
      std::memcpy(to + d / 2, from + d * 2, static_cast<size_t>(c.key_dim - d) * 2);
    }
  }
  // Words [value_padded] of two neighbouring positions.
  static void pack_values(const Attention& c, const char* const* rows, int64_t count,
                          int64_t padded, uint32_t* to) {
    const __m512i low = interleaving(0), high = interleaving(16);
    for (int64_t d = 0; d < padded; d += 32) {
      const __m512i even = load_halves(rows[0] + d * 2, c.value_dim - d);
      const __m512i odd =
          count > 1 ? load_halves(rows[1] + d * 2, c.value_dim - d) : _mm512_setzero_si512();
      store(to + d, _mm512_permutex2var_epi16(even, low, odd));
      if (d + 16 < padded) store(to + d + 16, _mm512_permutex2var_epi16(even, high, odd));
    }
  }
  static void put_weights(const VecF* weights, uint32_t* to) {
    const __m512bh halves = _mm512_cvtne2ps_pbh(of(weights[1]), of(weights[0]));
    alignas(64) uint16_t lanes[32];
    for (int i = 0; i < 16; ++i) {
      lanes[2 * i] = static_cast<uint16_t>(i);
      lanes[2 * i + 1] = static_cast<uint16_t>(i + 16);
    }
    store(to,
          _mm512_permutexvar_epi16(_mm512_load_si512(lanes), reinterpret_cast<__m512i>(halves)));
  }
};

// The sums of the lanes of 4 vectors, spread over the lanes of each quarter: quarter q holds the
// partial sums of quarter q of each.
inline __m512 quarter_sums(const __m512* v) {
  const __m512 a = _mm512_add_ps(_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1]));
  const __m512 b = _mm512_add_ps(_mm512_unpacklo_ps(v[2], v[3]), _mm512_unpackhi_ps(v[2], v[3]));
  const __m512d ad = _mm512_castps_pd(a), bd = _mm512_castps_pd(b);
  return _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(ad, bd)),
                       _mm512_castpd_ps(_mm512_unpackhi_pd(ad, bd)));
}
// From 4 results of quarter_sums, the 16 sums in order.
inline __m512 whole_sums(const __m512* v) {
  const auto halves = [](__m512 a, __m512 b) {
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
  };
  return halves(halves(v[0], v[1]), halves(v[2], v[3]));
}

struct PairReader {
  static constexpr bool kRough = true;

  static void put_q(const Attention& c, const void* from, int64_t padded, float* to) {
    std::memset(to, 0, static_cast<size_t>(padded) * 2);
    std::memcpy(to, from, static_cast<size_t>(c.key_dim) * 2);
  }

  template <int R>
  static void scores(const Attention& c, const Few& f, const float* q, const Rows& keys,
                     Prefetcher& ahead, float* scores) {
    for (int64_t j = 0; j < keys.count; j += 16) {
      __m512 quarters[R][4];
      for (int g = 0; g < 4; ++g) {
        const char* row[4];
        for (int64_t i = 0; i < 4; ++i) {
          const int64_t at = j + 4 * g + i;
          row[i] = keys.at[at < keys.count ? at : keys.count - 1];
          ahead.ask(ahead.share);
        }
        __m512 sums[R][4];
        for (int r = 0; r < R; ++r) {
          for (int i = 0; i < 4; ++i) sums[r][i] = _mm512_setzero_ps();
        }
        for (int64_t d = 0; d < c.key_dim; d += 32) {
          __m512i key[4];
          for (int i = 0; i < 4; ++i) key[i] = load_halves(row[i] + d * 2, c.key_dim - d);
          for (int r = 0; r < R; ++r) {
            const __m512i query = _mm512_loadu_si512(q + r * f.key_padded + d / 2);
            for (int i = 0; i < 4; ++i) sums[r][i] = multiply_pairs(sums[r][i], query, key[i]);
          }
        }
        for (int r = 0; r < R; ++r) quarters[r][g] = quarter_sums(sums[r]);
      }
      for (int r = 0; r < R; ++r) {
        _mm512_storeu_ps(scores + r * kKvBlock + j, whole_sums(quarters[r]));
      }
    }
  }

  // N times 32 dimensions from d on. Sums lie as unpacklo and unpackhi of two rows leave them.
  template <int R, int N>
  static void add_some(const Attention& c, const Few& f, const uint16_t* weights,
                       const float* shrink, const Rows& values, Prefetcher& ahead, int64_t d,
                       float* sums) {
    __m512 sum[R][2 * N];
    for (int r = 0; r < R; ++r) {
      for (int n = 0; n < 2 * N; ++n) {
        sum[r][n] = _mm512_mul_ps(_mm512_loadu_ps(sums + r * f.value_padded + d + 16 * n),
                                  _mm512_set1_ps(shrink[r]));
      }
    }
    for (int64_t j = 0; j < values.count; j += 2) {
      const bool two = j + 1 < values.count;
      if (d == 0) ahead.ask(2 * ahead.share);
      __m512i words[2 * N];
      for (int n = 0; n < N; ++n) {
        const int64_t at = d + 32 * n;
        const __m512i even = load_halves(values.at[j] + at * 2, c.value_dim - at);
        const __m512i odd =
            two ? load_halves(values.at[j + 1] + at * 2, c.value_dim - at) : _mm512_setzero_si512();
        words[2 * n] = _mm512_unpacklo_epi16(even, odd);
        words[2 * n + 1] = _mm512_unpackhi_epi16(even, odd);
      }
      for (int r = 0; r < R; ++r) {
        int32_t pair = 0;
        std::memcpy(&pair, weights + r * kKvBlock + j, sizeof pair);
        const __m512i weight = _mm512_set1_epi32(pair);
        for (int n = 0; n < 2 * N; ++n) sum[r][n] = multiply_pairs(sum[r][n], weight, words[n]);
      }
    }
    for (int r = 0; r < R; ++r) {
      for (int n = 0; n < 2 * N; ++n) {
        _mm512_storeu_ps(sums + r * f.value_padded + d + 16 * n, sum[r][n]);
      }
    }
  }

  template <int R>
  static void add_values(const Attention& c, const Few& f, const float* weights,
                         const float* shrink, const Rows& values, Prefetcher& ahead, float* sums) {
    alignas(64) uint16_t halves[R * kKvBlock];
    for (int64_t i = 0; i < R * kKvBlock; i += 32) {
      store(halves + i,
            _mm512_cvtne2ps_pbh(_mm512_loadu_ps(weights + i + 16), _mm512_loadu_ps(weights + i)));
    }
    int64_t d = 0;
    for (; d + 64 <= c.value_dim; d += 64)
      add_some<R, 2>(c, f, halves, shrink, values, ahead, d, sums);
    for (; d < c.value_dim; d += 32) add_some<R, 1>(c, f, halves, shrink, values, ahead, d, sums);
  }

  static void finish(const Few& f, float* sums) {
    // Quarter q of unpacklo holds dimensions 8q to 8q + 3, of unpackhi the next four.
    const __m512i low = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const __m512i high =
        _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
    for (int64_t d = 0; d < f.value_padded; d += 32) {
      const __m512 a = _mm512_loadu_ps(sums + d), b = _mm512_loadu_ps(sums + d + 16);
      _mm512_storeu_ps(sums + d, _mm512_permutex2var_ps(a, low, b));
      _mm512_storeu_ps(sums + d + 16, _mm512_permutex2var_ps(a, high, b));
    }
  }
};

void run(const Attention& c, const AttentionItem& item) {
  const bool few = item.tokens * groups_of(c) <= kFewRows;
  const bool pairs = pairs_fit(c);
  if (few && pairs) return run_few<PairReader>(c, item);
  if (few) return run_few<PlainReader>(c, item);
  if (pairs) return run_tile<PairPacking>(c, item);
  run_tile<PlainPacking>(c, item);
}

}  // namespace

const AttentionIsa kAvx512Attention = {kGroupRows, run, join_parts, turn_heads};

}  // namespace ttpu::kernels::cpu

#endif
