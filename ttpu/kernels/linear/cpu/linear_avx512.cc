// The linear kernels for AVX512 with BF16 and VNNI.
#include "ttpu/kernels/linear/cpu/generic.h"

#if defined(__x86_64__)
#include "ttpu/kernels/linear/cpu/int8_avx512.h"
#include "ttpu/kernels/linear/cpu/rows_avx512.h"

namespace ttpu::kernels::cpu {
namespace {

// ---- few rows ----

template <int kRows>
void few_rows_of(const Weight& weight, Form form, const FewRows& x, int64_t first, int64_t count,
                 float* y, int64_t y_stride) {
  if (form == Form::kBf16) return few_rows_bf16<kRows>(weight, x, first, count, y, y_stride);
  return few_rows_int8<kRows>(weight, x, first, count, y, y_stride);
}

void few_rows_avx512(const Weight& weight, Form form, const FewRows& x, int64_t first,
                     int64_t count, float* y, int64_t y_stride) {
  if (form == Form::kF32) return few_rows_f32(weight, x, first, count, y, y_stride);
  switch (x.rows) {
    case 1:
      return few_rows_of<1>(weight, form, x, first, count, y, y_stride);
    case 2:
      return few_rows_of<2>(weight, form, x, first, count, y, y_stride);
    case 3:
      return few_rows_of<3>(weight, form, x, first, count, y, y_stride);
    case 4:
      return few_rows_of<4>(weight, form, x, first, count, y, y_stride);
    default:
      return rows_in_tiles_bf16(weight, x, first, count, y, y_stride);
  }
}

// ---- bf16 tiles, many rows ----

// 16 rows of 16 pairs become 16 pairs of 16 rows.
inline void transpose_16x16(__m512i (&v)[16]) {
  __m512i t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    v[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    v[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    v[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    v[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
  // v[4 i + c] holds, in its lane l, column 4 l + c of rows 4 i to 4 i + 3.
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    const __m512i a = _mm512_shuffle_i32x4(v[c], v[4 + c], 0x88);
    const __m512i b = _mm512_shuffle_i32x4(v[8 + c], v[12 + c], 0x88);
    const __m512i d = _mm512_shuffle_i32x4(v[c], v[4 + c], 0xdd);
    const __m512i e = _mm512_shuffle_i32x4(v[8 + c], v[12 + c], 0xdd);
    t[c] = _mm512_shuffle_i32x4(a, b, 0x88);
    t[8 + c] = _mm512_shuffle_i32x4(a, b, 0xdd);
    t[4 + c] = _mm512_shuffle_i32x4(d, e, 0x88);
    t[12 + c] = _mm512_shuffle_i32x4(d, e, 0xdd);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) v[i] = t[i];
}

inline int64_t pairs_of(int64_t in) { return (in + 1) / 2; }

int64_t panel_bytes_avx512(Form form, int64_t in) {
  return form == Form::kBf16 ? pairs_of(in) * kPanel * 4 : panel_bytes_f32(form, in);
}

// Elements [k, k + n) of `columns` rows, as bf16: in place for bf16 weights, else in `staging`.
void bf16_rows(const Weight& weight, int64_t first, int64_t columns, int64_t k, int64_t n,
               uint16_t (*staging)[kChunk], const uint16_t** rows) {
  alignas(64) float wide[kChunk];
  for (int64_t c = 0; c < columns; ++c) {
    if (weight.encoding == Encoding::kDense && weight.dtype == DType::kBF16) {
      rows[c] = static_cast<const uint16_t*>(weight.data) + (first + c) * weight.in + k;
      continue;
    }
    round_to_bf16(expand(weight, first + c, k, n, wide), n, staging[c]);
    rows[c] = staging[c];
  }
}

// A panel is [in / 2][kPanel] pairs; sixteen columns are packed at a time.
void pack_bf16(const Weight& weight, int64_t first, int64_t count, uint32_t* tile) {
  alignas(64) uint16_t staging[16][kChunk];
  const uint16_t* rows[16];
  const int64_t whole = (count + kPanel - 1) / kPanel * kPanel;
  for (int64_t j = 0; j < whole; j += 16) {
    const int64_t columns = j >= count ? 0 : smaller(16, count - j);
    uint32_t* panel = tile + j / kPanel * pairs_of(weight.in) * kPanel + j % kPanel;
    for (int64_t k = 0; k < weight.in; k += kChunk) {
      const int64_t n = smaller(kChunk, weight.in - k);
      bf16_rows(weight, first + j, columns, k, n, staging, rows);
      for (int64_t i = 0; i < n; i += 32) {
        const __mmask32 mask = n - i >= 32 ? ~0u : (1u << (n - i)) - 1;
        __m512i v[16];
        for (int c = 0; c < 16; ++c) {
          v[c] = c < columns ? _mm512_maskz_loadu_epi16(mask, rows[c] + i) : _mm512_setzero_si512();
        }
        transpose_16x16(v);
        const int64_t pairs = smaller(16, pairs_of(n - i));
        uint32_t* to = panel + (k + i) / 2 * kPanel;
        for (int64_t p = 0; p < pairs; ++p) _mm512_storeu_si512(to + p * kPanel, v[p]);
      }
    }
  }
}

inline __m512bh broadcast_pair(const uint16_t* from) {
  int32_t pair = 0;
  std::memcpy(&pair, from, sizeof pair);
  return (__m512bh)_mm512_set1_epi32(pair);
}

template <int kRows>
void panel_bf16(const uint16_t* x, int64_t x_stride, int64_t in, const uint32_t* panel, float* y,
                int64_t y_stride) {
  __m512 sums[kRows][2];
  for (auto& row : sums) row[0] = row[1] = _mm512_setzero_ps();
  // Three rows to a pointer: x86 addresses p, p + s and p + 2 s at no cost.
  constexpr int kPointers = (kRows + 2) / 3;
  const uint16_t* from[kPointers];
  for (int p = 0; p < kPointers; ++p) from[p] = x + 3 * p * x_stride;
  for (int64_t k = 0; k + 2 <= in; k += 2, panel += kPanel) {
    const __m512bh b0 = (__m512bh)_mm512_loadu_si512(panel);
    const __m512bh b1 = (__m512bh)_mm512_loadu_si512(panel + 16);
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
      const __m512bh a = broadcast_pair(from[r / 3] + (r % 3) * x_stride);
      sums[r][0] = _mm512_dpbf16_ps(sums[r][0], a, b0);
      sums[r][1] = _mm512_dpbf16_ps(sums[r][1], a, b1);
    }
#pragma GCC unroll 4
    for (int p = 0; p < kPointers; ++p) from[p] += 2;
  }
  if (in % 2 != 0) {
    const __m512bh b0 = (__m512bh)_mm512_loadu_si512(panel);
    const __m512bh b1 = (__m512bh)_mm512_loadu_si512(panel + 16);
    for (int r = 0; r < kRows; ++r) {
      const __m512bh a = (__m512bh)_mm512_set1_epi32(x[r * x_stride + in - 1]);
      sums[r][0] = _mm512_dpbf16_ps(sums[r][0], a, b0);
      sums[r][1] = _mm512_dpbf16_ps(sums[r][1], a, b1);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    _mm512_storeu_ps(y + r * y_stride, sums[r][0]);
    _mm512_storeu_ps(y + r * y_stride + 16, sums[r][1]);
  }
}

template <int kRows>
void many_rows_bf16(const uint16_t* x, int64_t x_stride, int64_t rows, int64_t in,
                    const uint32_t* tile, int64_t panels, float* y, int64_t y_stride) {
  if constexpr (kRows > 0) {
    if (rows < kRows) {
      return many_rows_bf16<kRows - 1>(x, x_stride, rows, in, tile, panels, y, y_stride);
    }
    for (int64_t p = 0; p < panels; ++p) {
      panel_bf16<kRows>(x, x_stride, in, tile + p * pairs_of(in) * kPanel, y + p * kPanel,
                        y_stride);
    }
  }
}

// ---- the table ----

Form few_rows_form_avx512(const Weight& weight, DType x_dtype) {
  if (x_dtype != DType::kBF16) return Form::kF32;
  if (weight.encoding != Encoding::kDense) return Form::kInt8;
  return weight.dtype == DType::kBF16 ? Form::kBf16 : Form::kF32;
}

// Bf16 weights need no packing, which 128 rows hardly pay for.
int64_t rows_at_once_avx512(const Weight& weight, DType x_dtype) {
  return few_rows_form_avx512(weight, x_dtype) == Form::kBf16 ? 128 : kFewRowsAtOnce;
}

Form many_rows_form_avx512(const Weight& weight, DType x_dtype) {
  const bool f32_weight = weight.encoding == Encoding::kDense && weight.dtype == DType::kF32;
  return x_dtype == DType::kBF16 && !f32_weight ? Form::kBf16 : Form::kF32;
}

void pack_avx512(const Weight& weight, Form form, int64_t first, int64_t count, void* tile) {
  if (form == Form::kBf16) return pack_bf16(weight, first, count, static_cast<uint32_t*>(tile));
  pack_f32(weight, first, count, static_cast<float*>(tile));
}

void many_rows_avx512(Form form, const void* x, int64_t x_stride, int64_t rows, int64_t in,
                      const void* tile, int64_t panels, float* y, int64_t y_stride) {
  if (form == Form::kF32) {
    return many_rows_only_f32(form, x, x_stride, rows, in, tile, panels, y, y_stride);
  }
  many_rows_bf16<kRowBlock>(static_cast<const uint16_t*>(x), x_stride, rows, in,
                            static_cast<const uint32_t*>(tile), panels, y, y_stride);
}

}  // namespace

const IsaKernels kAvx512Kernels = {
    .few_rows_form = few_rows_form_avx512,
    .rows_at_once = rows_at_once_avx512,
    .many_rows_form = many_rows_form_avx512,
    .f32_from_bf16 = expand_bf16,
    .quantize = quantize_rows,
    .few_rows = few_rows_avx512,
    .panel = kPanel,
    .row_block = kRowBlock,
    .panel_bytes = panel_bytes_avx512,
    .pack = pack_avx512,
    .many_rows = many_rows_avx512,
    .store = store_row,
};

}  // namespace ttpu::kernels::cpu

#endif
