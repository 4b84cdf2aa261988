// Small matrix products of the attention kernels.
#pragma once

#include "ttpu/kernels/cpu/simd.h"

namespace ttpu::kernels::cpu {
namespace {

// Sums in registers at once: kScoreRows x kGroupVectors for scores, kSumRows x kSumColumns for
// weighted values.
#if defined(__AVX512F__)
constexpr int kScoreRows = 8, kSumRows = 6, kSumColumns = 4;
#else
constexpr int kScoreRows = 4, kSumRows = 6, kSumColumns = 2;
#endif
constexpr int kGroupVectors = 3;

// Products of 32-bit words: one f32, or (AVX512) two bf16.
struct PlainWords {
  static VecF multiply_add(VecF sum, uint32_t a, VecF b) {
    float value = 0;
    std::memcpy(&value, &a, sizeof value);
    return sum + value * b;
  }
};

struct Operand {
  const uint32_t* words;
  int64_t stride;
};

// C += A B (kFresh: C = A B) for M rows and N vectors of columns, kept in registers. The words of a
// row of A are neighbours (kAlong), or those of a column.
template <typename Words, int M, int N, bool kAlong, bool kFresh>
inline void block_product(Operand a, int64_t depth, Operand b, float* c, int64_t c_stride) {
  VecF sums[M][N];
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) {
      sums[i][j] = kFresh ? VecF{} : load<VecF>(c + i * c_stride + j * kLanes);
    }
  }
  for (int64_t k = 0; k < depth; ++k) {
    VecF row[N];
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) row[j] = load<VecF>(b.words + k * b.stride + j * kLanes);
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) {
      const uint32_t word = kAlong ? a.words[i * a.stride + k] : a.words[k * a.stride + i];
#pragma GCC unroll 8
      for (int j = 0; j < N; ++j) sums[i][j] = Words::multiply_add(sums[i][j], word, row[j]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) store(c + i * c_stride + j * kLanes, sums[i][j]);
  }
}

// All rows (a multiple of M) over N vectors of columns.
template <typename Words, int M, int N, bool kAlong, bool kFresh>
inline void column_product(Operand a, int64_t rows, int64_t depth, Operand b, float* c,
                           int64_t c_stride) {
  for (int64_t i = 0; i < rows; i += M) {
    const Operand at{a.words + (kAlong ? i * a.stride : i), a.stride};
    block_product<Words, M, N, kAlong, kFresh>(at, depth, b, c + i * c_stride, c_stride);
  }
}

}  // namespace
}  // namespace ttpu::kernels::cpu
