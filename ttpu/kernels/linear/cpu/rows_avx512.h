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

}  // namespace
}  // namespace ttpu::kernels::cpu
