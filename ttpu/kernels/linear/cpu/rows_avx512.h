// AVX512: what the kernels for few rows share, and bf16 x bf16. Included by linear_avx512.cc only.
#pragma once

#include <cstdint>

#include <immintrin.h>

namespace ttpu::kernels::cpu {
namespace {

// How far ahead of the elements in work the weight is asked for, in bytes. Rows are read one after
// another: rows side by side would be short streams that the hardware does not follow.
inline constexpr int64_t kPrefetchBytes = 4096;

inline void prefetch(const uint8_t* from, int64_t bytes) {
  for (int64_t line = 0; line < bytes; line += 64) {
    _mm_prefetch(reinterpret_cast<const char*>(from) + line + kPrefetchBytes, _MM_HINT_T1);
  }
}

// The sums of four vectors.
inline __m128 sum_of_four(__m512 a, __m512 b, __m512 c, __m512 d) {
  const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
  const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
  const __m512d low = _mm512_unpacklo_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd));
  const __m512d high = _mm512_unpackhi_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd));
  const __m512 all = _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
  return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

// y[r * y_stride + j] = the sum over the vector that row(j, sums) puts into sums[r].
template <int kRows, typename Row>
inline __attribute__((always_inline)) void by_fours(int64_t count, float* y, int64_t y_stride,
                                                    const Row& row) {
  int64_t j = 0;
  for (; j + 4 <= count; j += 4) {
    __m512 sums[4][kRows];
    for (int c = 0; c < 4; ++c) row(j + c, sums[c]);
    for (int r = 0; r < kRows; ++r) {
      _mm_storeu_ps(y + r * y_stride + j,
                    sum_of_four(sums[0][r], sums[1][r], sums[2][r], sums[3][r]));
    }
  }
  for (; j < count; ++j) {
    __m512 sums[kRows];
    row(j, sums);
    for (int r = 0; r < kRows; ++r) y[r * y_stride + j] = _mm512_reduce_add_ps(sums[r]);
  }
}

// One row of the weight with each row of x.
template <int kRows>
inline __attribute__((always_inline)) void dot_bf16(const uint16_t* w, const uint16_t* x,
                                                    int64_t in, __m512 (&sums)[kRows]) {
  constexpr int kParts = kRows == 1 ? 4 : 2;  // sums that do not wait for each other
  __m512 parts[kParts][kRows];
  for (auto& part : parts) {
    for (auto& sum : part) sum = _mm512_setzero_ps();
  }
  int64_t k = 0;
  for (; k + 32 * kParts <= in; k += 32 * kParts) {
#pragma GCC unroll 4
    for (int p = 0; p < kParts; ++p) {
      const int64_t at = k + 32 * p;
      prefetch(reinterpret_cast<const uint8_t*>(w + at), 64);
      const __m512bh b = (__m512bh)_mm512_loadu_si512(w + at);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        const __m512bh a = (__m512bh)_mm512_loadu_si512(x + r * in + at);
        parts[p][r] = _mm512_dpbf16_ps(parts[p][r], a, b);
      }
    }
  }
  for (; k < in; k += 32) {
    const __mmask32 mask = in - k >= 32 ? ~0u : (1u << (in - k)) - 1;
    const __m512bh b = (__m512bh)_mm512_maskz_loadu_epi16(mask, w + k);
    for (int r = 0; r < kRows; ++r) {
      const __m512bh a = (__m512bh)_mm512_maskz_loadu_epi16(mask, x + r * in + k);
      parts[0][r] = _mm512_dpbf16_ps(parts[0][r], a, b);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    sums[r] = _mm512_add_ps(parts[0][r], parts[1][r]);
    if constexpr (kParts == 4) {
      sums[r] = _mm512_add_ps(sums[r], _mm512_add_ps(parts[2][r], parts[3][r]));
    }
  }
}

template <int kRows>
void few_rows_bf16(const Weight& weight, const FewRows& x, int64_t first, int64_t count, float* y,
                   int64_t y_stride) {
  const uint16_t* w = static_cast<const uint16_t*>(weight.data) + first * x.in;
  by_fours<kRows>(count, y, y_stride, [&](int64_t j, __m512(&sums)[kRows]) {
    dot_bf16<kRows>(w + j * x.in, x.bf16, x.in, sums);
  });
}

// ---- more rows: tiles of rows of x and four rows of the weight, both read where they are ----

inline constexpr int kTileRows = 6;

// What comes next of the weight, asked for while a tile is computed: at each step `lines` of it.
struct Next {
  const char* from;
  int64_t bytes;  // from one step to the next one
};

// y[r * y_stride + c] = x[r] · w[c] for four rows of the weight.
template <int kRows, int kLines>
void tile_bf16(const uint16_t* w, const uint16_t* x, int64_t in, Next next, float* y,
               int64_t y_stride) {
  __m512 sums[kRows][4];
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) sums[r][c] = _mm512_setzero_ps();
  }
  const auto step = [&](int64_t k, __mmask32 mask) __attribute__((always_inline)) {
    __m512bh b[4];
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      b[c] = (__m512bh)_mm512_maskz_loadu_epi16(mask, w + c * in + k);
    }
#pragma GCC unroll 4
    for (int line = 0; line < kLines; ++line) _mm_prefetch(next.from + 64 * line, _MM_HINT_T0);
    next.from += next.bytes;
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) {
      const __m512bh a = (__m512bh)_mm512_maskz_loadu_epi16(mask, x + r * in + k);
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c) sums[r][c] = _mm512_dpbf16_ps(sums[r][c], a, b[c]);
    }
  };
  int64_t k = 0;
  for (; k + 32 <= in; k += 32) step(k, ~0u);
  if (k < in) step(k, (1u << (in - k)) - 1);
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) {
    _mm_storeu_ps(y + r * y_stride, sum_of_four(sums[r][0], sums[r][1], sums[r][2], sums[r][3]));
  }
}

template <int kRows, int kLines>
void tile_of_rows(int64_t rows, const uint16_t* w, const uint16_t* x, int64_t in, Next next,
                  float* y, int64_t y_stride) {
  if constexpr (kRows > 0) {
    if (rows < kRows) return tile_of_rows<kRows - 1, kLines>(rows, w, x, in, next, y, y_stride);
    tile_bf16<kRows, kLines>(w, x, in, next, y, y_stride);
  }
}

// Columns in fours, the last four of them perhaps once more.
inline void rows_in_tiles_bf16(const Weight& weight, const FewRows& x, int64_t first, int64_t count,
                               float* y, int64_t y_stride) {
  if (count < 4) {
    for (int64_t r = 0; r < x.rows; ++r) {
      const FewRows row{.rows = 1, .in = x.in, .bf16 = x.bf16 + r * x.in};
      few_rows_bf16<1>(weight, row, first, count, y + r * y_stride, y_stride);
    }
    return;
  }
  const int64_t tiles = (x.rows + kTileRows - 1) / kTileRows;
  // Asked for two fours of columns ahead, evenly and in the order of memory.
  const int64_t chunk = 4 * x.in * 2, bytes = (256 + tiles - 1) / tiles;
  for (int64_t column = 0; column < count; column += 4) {
    const int64_t j = column < count - 4 ? column : count - 4;
    const uint16_t* w = static_cast<const uint16_t*>(weight.data) + (first + j) * x.in;
    for (int64_t i = 0; i < tiles; ++i) {  // tiles of as many rows, to one row
      const int64_t row = x.rows * i / tiles, rows = x.rows * (i + 1) / tiles - row;
      const Next next{reinterpret_cast<const char*>(w) + 2 * chunk + chunk * i / tiles, bytes};
      const uint16_t* const from = x.bf16 + row * x.in;
      float* const to = y + row * y_stride + j;
      if (bytes <= 64) {
        tile_of_rows<kTileRows, 1>(rows, w, from, x.in, next, to, y_stride);
      } else if (bytes <= 128) {
        tile_of_rows<kTileRows, 2>(rows, w, from, x.in, next, to, y_stride);
      } else {
        tile_of_rows<kTileRows, 4>(rows, w, from, x.in, next, to, y_stride);
      }
    }
  }
}

}  // namespace
}  // namespace ttpu::kernels::cpu
