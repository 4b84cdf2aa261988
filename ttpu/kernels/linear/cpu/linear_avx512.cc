// The linear kernels for AVX512 with BF16 and VNNI.
#include "ttpu/kernels/linear/cpu/generic.h"

#if defined(__x86_64__)
#include <immintrin.h>

namespace ttpu::kernels::cpu {
namespace {

// ---- bf16 x bf16, few rows ----

// How far ahead of the elements in work the weight is asked for, in bytes. Rows are read one after
// another: rows side by side would be short streams that the hardware does not follow.
constexpr int64_t kPrefetchBytes = 4096;

inline void prefetch(const void* from) {
  _mm_prefetch(static_cast<const char*>(from) + kPrefetchBytes, _MM_HINT_T1);
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
      prefetch(w + at);
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
  int64_t j = 0;
  for (; j + 4 <= count; j += 4) {
    __m512 sums[4][kRows];
    for (int c = 0; c < 4; ++c) dot_bf16<kRows>(w + (j + c) * x.in, x.bf16, x.in, sums[c]);
    for (int r = 0; r < kRows; ++r) {
      _mm_storeu_ps(y + r * y_stride + j,
                    sum_of_four(sums[0][r], sums[1][r], sums[2][r], sums[3][r]));
    }
  }
  for (; j < count; ++j) {
    __m512 sums[kRows];
    dot_bf16<kRows>(w + j * x.in, x.bf16, x.in, sums);
    for (int r = 0; r < kRows; ++r) y[r * y_stride + j] = _mm512_reduce_add_ps(sums[r]);
  }
}

// ---- blocked weights x 8-bit activations, few rows ----

void quantize_rows(const uint16_t* x, int64_t rows, int64_t in, int8_t* codes, float* scales,
                   float* sums, float* half_sums) {
  for (int64_t b = 0; b < rows * in / 32; ++b) {
    float values[32];
    expand_bf16(x + b * 32, 32, values);
    const __m512 low = _mm512_loadu_ps(values), high = _mm512_loadu_ps(values + 16);
    const float largest =
        _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(low), _mm512_abs_ps(high)));
    const float scale = largest / 127.0f;
    // The inverse of a tiny scale is infinite, and such a block is as good as zero.
    const __m512 inverse = _mm512_set1_ps(scale > 1e-37f ? 1.0f / scale : 0.0f);
    const __m512i a = _mm512_cvtps_epi32(_mm512_mul_ps(low, inverse));
    const __m512i c = _mm512_cvtps_epi32(_mm512_mul_ps(high, inverse));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + b * 32), _mm512_cvtsepi32_epi8(a));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + b * 32 + 16), _mm512_cvtsepi32_epi8(c));
    scales[b] = scale;
    half_sums[2 * b] = scale * static_cast<float>(_mm512_reduce_add_epi32(a));
    half_sums[2 * b + 1] = scale * static_cast<float>(_mm512_reduce_add_epi32(c));
    sums[b] = half_sums[2 * b] + half_sums[2 * b + 1];
  }
}

inline __m256i load_256(const void* from) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(from));
}

// Up to eight groups of 32 elements at a time: their scales, offsets and unsigned codes.
template <Encoding kEncoding>
struct Groups;

inline __m256i nibbles(const uint8_t* from) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  const __m256i both =
      _mm256_inserti128_si256(_mm256_castsi128_si256(bytes), _mm_srli_epi16(bytes, 4), 1);
  return _mm256_and_si256(both, _mm256_set1_epi8(15));
}

inline __m256i fifth_bits(const uint8_t* from) {
  uint32_t bits;
  std::memcpy(&bits, from, sizeof bits);
  return _mm256_maskz_set1_epi8(bits, 16);
}

// The first four bytes of `count` <= 8 blocks as halves: low ones to d, high ones to m.
template <int kBytes>
inline void block_heads(const uint8_t* block, int count, __m256& d, __m256& m) {
  alignas(32) uint32_t heads[8] = {};
  if (count == 8) {
    for (int i = 0; i < 8; ++i) std::memcpy(&heads[i], block + i * kBytes, 4);
  } else {
    for (int i = 0; i < count; ++i) std::memcpy(&heads[i], block + i * kBytes, 4);
  }
  const __m256i all = _mm256_set_epi32(static_cast<int>(heads[7]), static_cast<int>(heads[6]),
                                       static_cast<int>(heads[5]), static_cast<int>(heads[4]),
                                       static_cast<int>(heads[3]), static_cast<int>(heads[2]),
                                       static_cast<int>(heads[1]), static_cast<int>(heads[0]));
  d = _mm256_cvtph_ps(_mm256_cvtepi32_epi16(all));
  m = _mm256_cvtph_ps(_mm256_cvtepi32_epi16(_mm256_srli_epi32(all, 16)));
}

template <Encoding kEncoding, int kOffset>
struct PlainGroups {
  static constexpr int kBytes = Block<kEncoding>::kBytes;
  static void scales(const uint8_t* block, int count, __m256& scale, __m256& offset) {
    __m256 m;
    block_heads<kBytes>(block, count, scale, m);
    offset = kOffset == 0 ? m : _mm256_mul_ps(scale, _mm256_set1_ps(kOffset));
  }
};

template <>
struct Groups<Encoding::kQ4_0> : PlainGroups<Encoding::kQ4_0, -8> {
  static __m256i codes(const uint8_t* block, int g) { return nibbles(block + g * kBytes + 2); }
};
template <>
struct Groups<Encoding::kQ4_1> : PlainGroups<Encoding::kQ4_1, 0> {
  static __m256i codes(const uint8_t* block, int g) { return nibbles(block + g * kBytes + 4); }
};
template <>
struct Groups<Encoding::kQ5_0> : PlainGroups<Encoding::kQ5_0, -16> {
  static __m256i codes(const uint8_t* block, int g) {
    block += g * kBytes;
    return _mm256_or_si256(nibbles(block + 6), fifth_bits(block + 2));
  }
};
template <>
struct Groups<Encoding::kQ5_1> : PlainGroups<Encoding::kQ5_1, 0> {
  static __m256i codes(const uint8_t* block, int g) {
    block += g * kBytes;
    return _mm256_or_si256(nibbles(block + 8), fifth_bits(block + 4));
  }
};
template <>
struct Groups<Encoding::kQ8_0> : PlainGroups<Encoding::kQ8_0, -128> {
  static __m256i codes(const uint8_t* block, int g) {
    return _mm256_xor_si256(load_256(block + g * kBytes + 2), _mm256_set1_epi8(-128));
  }
};

struct KGroups {
  static void scales(const uint8_t* block, int, __m256& scale, __m256& offset) {
    Unpacked parts;
    unpack_scales_k4(block, parts);
    scale = _mm256_loadu_ps(parts.scale);
    offset = _mm256_loadu_ps(parts.offset);
  }
  static __m256i halves(const uint8_t* from, int g) {
    const __m256i bytes = load_256(from + 32 * (g / 2));
    const __m256i low = g % 2 == 0 ? bytes : _mm256_srli_epi16(bytes, 4);
    return _mm256_and_si256(low, _mm256_set1_epi8(15));
  }
};
template <>
struct Groups<Encoding::kQ4_K> : KGroups {
  static __m256i codes(const uint8_t* block, int g) { return halves(block + 16, g); }
};
template <>
struct Groups<Encoding::kQ5_K> : KGroups {
  static __m256i codes(const uint8_t* block, int g) {
    const __mmask32 set =
        _mm256_test_epi8_mask(load_256(block + 16), _mm256_set1_epi8(static_cast<char>(1 << g)));
    return _mm256_or_si256(halves(block + 48, g), _mm256_maskz_set1_epi8(set, 16));
  }
};

inline float sum_256(__m256 value) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(value), _mm256_extractf128_ps(value, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

// One step: `count` groups of 32 (a constant 8 where it is known) of one row of the weight.
template <Encoding kEncoding, int kRows>
inline __attribute__((always_inline)) void add_groups(const uint8_t* block, int count,
                                                      const Int8Rows& x, int64_t groups,
                                                      int64_t group, __m256 (&sums)[2][kRows]) {
  using G = Groups<kEncoding>;
  __m256 scale, offset;
  G::scales(block, count, scale, offset);
  alignas(32) float factors[kRows][8];
  const __mmask8 mask = static_cast<__mmask8>((1u << count) - 1);
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    const int64_t at = r * groups + group;
    _mm256_store_ps(factors[r], _mm256_mul_ps(scale, _mm256_maskz_loadu_ps(mask, x.scales + at)));
    sums[0][r] = _mm256_fmadd_ps(offset, _mm256_maskz_loadu_ps(mask, x.sums + at), sums[0][r]);
  }
#pragma GCC unroll 8
  for (int g = 0; g < count; ++g) {
    const __m256i codes = G::codes(block, g);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const __m256i a = load_256(x.codes + ((r * groups) + group + g) * 32);
      const __m256i dot = _mm256_dpbusd_epi32(_mm256_setzero_si256(), codes, a);
      sums[g % 2][r] =
          _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), _mm256_set1_ps(factors[r][g]), sums[g % 2][r]);
    }
  }
}

// Encodings with groups of 32.
template <Encoding kEncoding, int kRows>
void few_rows_groups32(const Weight& weight, const FewRows& x, int64_t first, int64_t count,
                       float* y, int64_t y_stride) {
  using B = Block<kEncoding>;
  constexpr int64_t kStepBytes = 256 / B::kElements * B::kBytes;
  const int64_t groups = x.in / 32;
  const int64_t stride = x.in / B::kElements * B::kBytes;
  for (int64_t j = 0; j < count; ++j) {
    const uint8_t* block = static_cast<const uint8_t*>(weight.data) + (first + j) * stride;
    __m256 sums[2][kRows];
    for (int r = 0; r < kRows; ++r) sums[0][r] = sums[1][r] = _mm256_setzero_ps();
    int64_t group = 0;
    for (; group + 8 <= groups; group += 8, block += kStepBytes) {
      for (int64_t line = 0; line < kStepBytes; line += 64) prefetch(block + line);
      add_groups<kEncoding, kRows>(block, 8, x.int8, groups, group, sums);
    }
    if (group < groups) {
      add_groups<kEncoding, kRows>(block, static_cast<int>(groups - group), x.int8, groups, group,
                                   sums);
    }
    for (int r = 0; r < kRows; ++r) {
      y[r * y_stride + j] = sum_256(_mm256_add_ps(sums[0][r], sums[1][r]));
    }
  }
}

// Encodings with groups of 16 (in blocks of 256): each half of a vector has its own scale.
template <Encoding kEncoding, int kRows>
void few_rows_groups16(const Weight& weight, const FewRows& x, int64_t first, int64_t count,
                       float* y, int64_t y_stride) {
  using B = Block<kEncoding>;
  const int64_t groups = x.in / 32;
  const int64_t stride = x.in / B::kElements * B::kBytes;
  Unpacked parts;
  for (int64_t j = 0; j < count; ++j) {
    const uint8_t* block = static_cast<const uint8_t*>(weight.data) + (first + j) * stride;
    __m256 sums[kRows];
    for (int r = 0; r < kRows; ++r) sums[r] = _mm256_setzero_ps();
    for (int64_t group = 0; group < groups; group += 8, block += B::kBytes) {
      B::unpack(block, parts);
      const __m512 offset = _mm512_loadu_ps(parts.offset);
      for (int r = 0; r < kRows; ++r) {
        const float* half_sums = x.int8.half_sums + (r * groups + group) * 2;
        const __m512 part = _mm512_mul_ps(offset, _mm512_loadu_ps(half_sums));
        sums[r] = _mm256_add_ps(
            sums[r], _mm256_add_ps(_mm512_castps512_ps256(part), _mm512_extractf32x8_ps(part, 1)));
      }
#pragma GCC unroll 8
      for (int g = 0; g < 8; ++g) {
        const __m256i codes = load_256(parts.codes + 32 * g);
        const __m256 scale =
            _mm256_set_m128(_mm_set1_ps(parts.scale[2 * g + 1]), _mm_set1_ps(parts.scale[2 * g]));
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) {
          const int64_t at = r * groups + group + g;
          const __m256i dot =
              _mm256_dpbusd_epi32(_mm256_setzero_si256(), codes, load_256(x.int8.codes + at * 32));
          const __m256 factor = _mm256_mul_ps(scale, _mm256_set1_ps(x.int8.scales[at]));
          sums[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), factor, sums[r]);
        }
      }
    }
    for (int r = 0; r < kRows; ++r) y[r * y_stride + j] = sum_256(sums[r]);
  }
}

template <int kRows>
void few_rows_int8(const Weight& weight, const FewRows& x, int64_t first, int64_t count, float* y,
                   int64_t y_stride) {
  with_encoding(weight.encoding, [&]<Encoding kEncoding>() {
    if constexpr (Block<kEncoding>::kGroup == 32) {
      few_rows_groups32<kEncoding, kRows>(weight, x, first, count, y, y_stride);
    } else {
      few_rows_groups16<kEncoding, kRows>(weight, x, first, count, y, y_stride);
    }
  });
}

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
    default:
      return few_rows_of<4>(weight, form, x, first, count, y, y_stride);
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
  int32_t pair;
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
