// AVX512: blocked weights with activations rounded to 8 bits, few rows. A vector holds 64 codes;
// its 16 sums of four products are widened and scaled by the factor (weight's scale times
// activation's) of the group that they belong to. Included by linear_avx512.cc only.
#pragma once

#include <cstdint>
#include <cstring>

#include <immintrin.h>

#include "ttpu/kernels/linear/cpu/blocks.h"
#include "ttpu/kernels/linear/cpu/isa_kernels.h"
#include "ttpu/kernels/linear/cpu/rows_avx512.h"

namespace ttpu::kernels::cpu {
namespace {

inline __m256i load_256(const void* from) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(from));
}
inline __m512i load_512(const void* from) { return _mm512_loadu_si512(from); }
// 256 bits twice.
inline __m512i twice(const void* from) { return _mm512_broadcast_i64x4(load_256(from)); }
inline __m512i halves(__m256i low, __m256i high) {
  return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}
inline __m512i indices_16(int a, int b, int c, int d) {
  return _mm512_set_epi32(d, d, d, d, c, c, c, c, b, b, b, b, a, a, a, a);
}

// ---- activations ----

inline __m128 max_of_four(__m512 a, __m512 b, __m512 c, __m512 d) {
  const __m512 ab = _mm512_max_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
  const __m512 cd = _mm512_max_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
  const __m512d low = _mm512_unpacklo_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd));
  const __m512d high = _mm512_unpackhi_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd));
  const __m512 all = _mm512_max_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
  const __m256 half = _mm256_max_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
  return _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

// The sums of the 16 codes of each quarter.
inline __m128i sums_of_quarters(__m512i codes) {
  __m512i sums = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(1), codes);
  sums = _mm512_add_epi32(sums, _mm512_shuffle_epi32(sums, _MM_PERM_CDAB));
  sums = _mm512_add_epi32(sums, _mm512_shuffle_epi32(sums, _MM_PERM_BADC));
  const __m512i firsts = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
  return _mm512_castsi512_si128(_mm512_permutexvar_epi32(firsts, sums));
}

inline __m512 bf16_to_f32(__m256i half) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

// Four groups, of which `count` exist and the others are zero, from x on; `group` counts groups in
// the arrays of `to`.
inline void quantize_quad(const uint16_t* x, int64_t count, const Int8Rows& to, int64_t group) {
  __m512 low[4], high[4], largest[4];
  for (int g = 0; g < 4; ++g) {
    const __m512i values = g < count ? load_512(x + 32 * g) : _mm512_setzero_si512();
    low[g] = bf16_to_f32(_mm512_castsi512_si256(values));
    high[g] = bf16_to_f32(_mm512_extracti64x4_epi64(values, 1));
    largest[g] = _mm512_max_ps(_mm512_abs_ps(low[g]), _mm512_abs_ps(high[g]));
  }
  const __m128 scale =
      _mm_div_ps(max_of_four(largest[0], largest[1], largest[2], largest[3]), _mm_set1_ps(127.0f));
  // The inverse of a tiny scale is infinite, and such a group is as good as zero.
  const __mmask8 usable = _mm_cmp_ps_mask(scale, _mm_set1_ps(1e-37f), _CMP_GT_OQ);
  alignas(16) float inverse[4];
  _mm_store_ps(inverse, _mm_maskz_div_ps(usable, _mm_set1_ps(1.0f), scale));
  alignas(64) int8_t quad[2][4][16];
  for (int g = 0; g < 4; ++g) {
    const __m512 by = _mm512_set1_ps(inverse[g]);
    const __m128i a = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(low[g], by)));
    const __m128i b = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(high[g], by)));
    _mm_store_si128(reinterpret_cast<__m128i*>(quad[0][g]), a);
    _mm_store_si128(reinterpret_cast<__m128i*>(quad[1][g]), b);
    __m128i* natural = reinterpret_cast<__m128i*>(to.codes + (group + g) * 32);
    _mm_storeu_si128(natural, a);
    _mm_storeu_si128(natural + 1, b);
  }
  const __m512i firsts = load_512(quad[0]), lasts = load_512(quad[1]);
  _mm512_storeu_si512(to.quads + group * 32, firsts);
  _mm512_storeu_si512(to.quads + group * 32 + 64, lasts);
  const __m128 a = _mm_mul_ps(scale, _mm_cvtepi32_ps(sums_of_quarters(firsts)));
  const __m128 b = _mm_mul_ps(scale, _mm_cvtepi32_ps(sums_of_quarters(lasts)));
  _mm_storeu_ps(to.scales + group, scale);
  _mm_storeu_ps(to.sums + group, _mm_add_ps(a, b));
  _mm_storeu_ps(to.half_sums + 2 * group, _mm_unpacklo_ps(a, b));
  _mm_storeu_ps(to.half_sums + 2 * group + 4, _mm_unpackhi_ps(a, b));
}

inline void quantize_rows(const uint16_t* x, int64_t rows, int64_t in, const Int8Rows& to) {
  for (int64_t r = 0; r < rows; ++r) {
    int64_t g = 0;
    for (; g < in / 32; g += 4) {
      quantize_quad(x + r * in + 32 * g, in / 32 - g, to, r * to.groups + g);
    }
    const int64_t first = r * to.groups + g;
    const size_t rest = static_cast<size_t>(to.groups - g);
    std::memset(to.codes + 32 * first, 0, 32 * rest);
    std::memset(to.quads + 32 * first, 0, 32 * rest);
    std::memset(to.scales + first, 0, sizeof(float) * rest);
    std::memset(to.sums + first, 0, sizeof(float) * rest);
    std::memset(to.half_sums + 2 * first, 0, 2 * sizeof(float) * rest);
  }
}

// ---- Q4_0, Q4_1, Q5_0, Q5_1: four blocks of 32 at a time ----
//
// Two overlapping loads hold four blocks; one permutation of their words takes out the 4-bit codes,
// another the scales. The low half of each byte belongs to the first 16 elements of its block:
// Int8Rows::quads has the activations in that order.

template <Encoding kEncoding>
struct QuadLayout;  // where a block has its minimum, fifth bits and codes; -1: it has none
template <>
struct QuadLayout<Encoding::kQ4_0> {
  static constexpr int kMinimum = -1, kFifth = -1, kCodes = 2, kZero = 8;
};
template <>
struct QuadLayout<Encoding::kQ4_1> {
  static constexpr int kMinimum = 2, kFifth = -1, kCodes = 4, kZero = 0;
};
template <>
struct QuadLayout<Encoding::kQ5_0> {
  static constexpr int kMinimum = -1, kFifth = 2, kCodes = 6, kZero = 16;
};
template <>
struct QuadLayout<Encoding::kQ5_1> {
  static constexpr int kMinimum = 2, kFifth = 4, kCodes = 8, kZero = 0;
};

struct WordIndices {
  alignas(64) uint16_t at[32];
  __m512i load() const { return _mm512_load_si512(at); }
};

template <Encoding kEncoding>
struct Quad {
  using Layout = QuadLayout<kEncoding>;
  static constexpr int kBytes = Block<kEncoding>::kBytes;
  // The second load takes the end of the four blocks, no more than it must: a long load that
  // straddles two cache lines counts double.
  static constexpr int kSecondBytes = kBytes <= 20 ? 16 : 32;
  static constexpr int kSecond = 4 * kBytes - kSecondBytes;

  static constexpr uint16_t word(int block, int byte) {
    const int at = block * kBytes + byte;
    return static_cast<uint16_t>(at + 2 <= 64 ? at / 2 : 32 + (at - kSecond) / 2);
  }
  static constexpr WordIndices code_words() {
    WordIndices indices{};
    for (int w = 0; w < 32; ++w) indices.at[w] = word(w / 8, Layout::kCodes + 2 * (w % 8));
    return indices;
  }
  // The scales of the four blocks, four times over; then their minima.
  static constexpr WordIndices head_words() {
    WordIndices indices{};
    for (int w = 0; w < 16; ++w) {
      indices.at[w] = word(w % 4, 0);
      indices.at[w + 16] = Layout::kMinimum < 0 ? 0 : word(w % 4, Layout::kMinimum);
    }
    return indices;
  }
  // The bits of the first 16 elements of each block, then those of the last.
  static constexpr WordIndices fifth_words() {
    WordIndices indices{};
    for (int w = 0; w < 8; ++w) indices.at[w] = word(w % 4, Layout::kFifth + 2 * (w / 4));
    return indices;
  }
  static constexpr WordIndices kCodeWords = code_words();
  static constexpr WordIndices kHeadWords = head_words();
  static constexpr WordIndices kFifthWords = fifth_words();

  __m512i a, b;

  void load(const uint8_t* block) {
    a = load_512(block);
    if constexpr (kSecondBytes == 16) {
      b = _mm512_castsi128_si512(
          _mm_loadu_si128(reinterpret_cast<const __m128i*>(block + kSecond)));
    } else {
      b = _mm512_castsi256_si512(load_256(block + kSecond));
    }
  }
  // `count` < 4 blocks; the others read as zeros.
  void load_some(const uint8_t* block, int count) {
    const int bytes = count * kBytes, second = bytes - kSecond;
    a = _mm512_maskz_loadu_epi8(bytes >= 64 ? ~uint64_t{0} : (uint64_t{1} << bytes) - 1, block);
    const uint64_t mask = second <= 0 ? 0 : (uint64_t{1} << second) - 1;
    b = _mm512_maskz_loadu_epi8(mask, block + kSecond);
  }
  __m512i heads() const { return _mm512_permutex2var_epi16(a, kHeadWords.load(), b); }
  void codes(__m512i& low, __m512i& high) const {
    const __m512i all = _mm512_permutex2var_epi16(a, kCodeWords.load(), b);
    const __m512i mask = _mm512_set1_epi8(15);
    low = _mm512_and_si512(all, mask);
    high = _mm512_and_si512(_mm512_srli_epi16(all, 4), mask);
    if constexpr (Layout::kFifth >= 0) {
      const __m128i bits =
          _mm512_castsi512_si128(_mm512_permutex2var_epi16(a, kFifthWords.load(), b));
      const __m512i fifth = _mm512_set1_epi8(16);
      low = _mm512_mask_add_epi8(low, static_cast<__mmask64>(_mm_cvtsi128_si64(bits)), low, fifth);
      high = _mm512_mask_add_epi8(high, static_cast<__mmask64>(_mm_extract_epi64(bits, 1)), high,
                                  fifth);
    }
  }
};

// 16 blocks; when not kWhole, `count` of them (the activations beyond are zeros).
template <Encoding kEncoding, int kRows, bool kWhole>
inline __attribute__((always_inline)) void add_quads(const uint8_t* block, int count,
                                                     const Int8Rows& x, int64_t group,
                                                     __m512 (&sums)[2][kRows]) {
  using Q = Quad<kEncoding>;
  Q quads[4];
  __m512i heads = _mm512_setzero_si512();
#pragma GCC unroll 4
  for (int q = 0; q < 4; ++q) {
    if (!kWhole && 4 * q >= count) break;
    if (kWhole || count - 4 * q >= 4) {
      quads[q].load(block + 4 * q * Q::kBytes);
    } else {
      quads[q].load_some(block + 4 * q * Q::kBytes, count - 4 * q);
    }
    heads = _mm512_mask_mov_epi16(heads, 0x000f000fu << (4 * q), quads[q].heads());
  }
  const __m512 scale = _mm512_cvtph_ps(_mm512_castsi512_si256(heads));
  const __m512 offset =
      Q::Layout::kMinimum >= 0
          ? _mm512_cvtph_ps(_mm512_extracti64x4_epi64(heads, 1))
          : _mm512_mul_ps(scale, _mm512_set1_ps(-static_cast<float>(Q::Layout::kZero)));
  __m512 factors[kRows];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    const int64_t at = r * x.groups + group;
    factors[r] = _mm512_mul_ps(scale, _mm512_loadu_ps(x.scales + at));
    sums[1][r] = _mm512_fmadd_ps(offset, _mm512_loadu_ps(x.sums + at), sums[1][r]);
  }
#pragma GCC unroll 4
  for (int q = 0; q < 4; ++q) {
    if (!kWhole && 4 * q >= count) break;
    __m512i low, high;
    quads[q].codes(low, high);
    const __m512i groups = indices_16(4 * q, 4 * q + 1, 4 * q + 2, 4 * q + 3);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const int8_t* a = x.quads + (r * x.groups + group + 4 * q) * 32;
      __m512i dot = _mm512_dpbusd_epi32(_mm512_setzero_si512(), low, load_512(a));
      dot = _mm512_dpbusd_epi32(dot, high, load_512(a + 64));
      sums[q % 2][r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot),
                                       _mm512_permutexvar_ps(groups, factors[r]), sums[q % 2][r]);
    }
  }
}

template <Encoding kEncoding, int kRows>
inline __attribute__((always_inline)) void dot_quads(const uint8_t* block, const Int8Rows& x,
                                                     int64_t groups, __m512 (&sums)[2][kRows]) {
  constexpr int kBytes = Block<kEncoding>::kBytes;
  int64_t group = 0;
  for (; group + 16 <= groups; group += 16, block += 16 * kBytes) {
    prefetch(block, 16 * kBytes);
    add_quads<kEncoding, kRows, true>(block, 16, x, group, sums);
  }
  if (group == groups) return;
  prefetch(block, (groups - group) * kBytes);
  add_quads<kEncoding, kRows, false>(block, static_cast<int>(groups - group), x, group, sums);
}

// ---- Q8_0, Q4_K, Q5_K: eight groups of 32, two to a vector ----

template <Encoding kEncoding>
struct Pairs;

template <>
struct Pairs<Encoding::kQ8_0> {
  static constexpr int kBytes = Block<Encoding::kQ8_0>::kBytes, kStepBytes = 8 * kBytes;
  static void scales(const uint8_t* block, int count, __m256& scale, __m256& offset) {
    alignas(16) uint16_t heads[8] = {};
    if (count == 8) {
      for (int i = 0; i < 8; ++i) heads[i] = load_u16(block + i * kBytes);
    } else {
      for (int i = 0; i < count; ++i) heads[i] = load_u16(block + i * kBytes);
    }
    scale = _mm256_cvtph_ps(
        _mm_set_epi16(static_cast<int16_t>(heads[7]), static_cast<int16_t>(heads[6]),
                      static_cast<int16_t>(heads[5]), static_cast<int16_t>(heads[4]),
                      static_cast<int16_t>(heads[3]), static_cast<int16_t>(heads[2]),
                      static_cast<int16_t>(heads[1]), static_cast<int16_t>(heads[0])));
    offset = _mm256_mul_ps(scale, _mm256_set1_ps(-128));
  }
  static __m512i codes(const uint8_t* block, int count, int pair) {
    const uint8_t* first = block + 2 * pair * kBytes + 2;
    const __m256i second = 2 * pair + 1 < count ? load_256(first + kBytes) : _mm256_setzero_si256();
    return _mm512_xor_si512(halves(load_256(first), second), _mm512_set1_epi8(-128));
  }
};

struct PairsK {
  // The eight 6-bit scales and minima.
  static void scales(const uint8_t* block, int, __m256& scale, __m256& offset) {
    uint32_t q[3];
    std::memcpy(q, block + 4, sizeof q);
    const uint32_t top_scales = (q[2] & 0x0f0f0f0f) | (((q[0] >> 6) & 0x03030303) << 4);
    const uint32_t top_minima = ((q[2] >> 4) & 0x0f0f0f0f) | (((q[1] >> 6) & 0x03030303) << 4);
    const auto widened = [](uint32_t low, uint32_t high) {
      const int64_t all = static_cast<int64_t>(uint64_t{high} << 32 | (low & 0x3f3f3f3f));
      return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(all)));
    };
    scale = _mm256_mul_ps(widened(q[0], top_scales), _mm256_set1_ps(load_f16(block)));
    offset = _mm256_mul_ps(widened(q[1], top_minima), _mm256_set1_ps(-load_f16(block + 2)));
  }
  static __m512i nibbles(const uint8_t* from) {
    const __m512i shifts = halves(_mm256_setzero_si256(), _mm256_set1_epi16(4));
    return _mm512_and_si512(_mm512_srlv_epi16(twice(from), shifts), _mm512_set1_epi8(15));
  }
};
template <>
struct Pairs<Encoding::kQ4_K> : PairsK {
  static constexpr int kStepBytes = Block<Encoding::kQ4_K>::kBytes;
  static __m512i codes(const uint8_t* block, int, int pair) {
    return nibbles(block + 16 + 32 * pair);
  }
};
template <>
struct Pairs<Encoding::kQ5_K> : PairsK {
  static constexpr int kStepBytes = Block<Encoding::kQ5_K>::kBytes;
  static __m512i codes(const uint8_t* block, int, int pair) {
    const __m512i bits = halves(_mm256_set1_epi8(static_cast<char>(1 << (2 * pair))),
                                _mm256_set1_epi8(static_cast<char>(2 << (2 * pair))));
    const __m512i four = nibbles(block + 48 + 32 * pair);
    const __mmask64 fifth = _mm512_test_epi8_mask(twice(block + 16), bits);
    return _mm512_mask_add_epi8(four, fifth, four, _mm512_set1_epi8(16));
  }
};

template <Encoding kEncoding, int kRows>
inline __attribute__((always_inline)) void add_pairs(const uint8_t* block, int count,
                                                     const Int8Rows& x, int64_t group,
                                                     __m512 (&sums)[2][kRows]) {
  using P = Pairs<kEncoding>;
  __m256 scale, offset;
  P::scales(block, count, scale, offset);
  __m512 factors[kRows];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    const int64_t at = r * x.groups + group;
    factors[r] = _mm512_castps256_ps512(_mm256_mul_ps(scale, _mm256_loadu_ps(x.scales + at)));
    const __m256 shifted = _mm256_mul_ps(offset, _mm256_loadu_ps(x.sums + at));
    sums[1][r] = _mm512_add_ps(sums[1][r], _mm512_zextps256_ps512(shifted));
  }
#pragma GCC unroll 4
  for (int pair = 0; pair < 4; ++pair) {
    if (2 * pair >= count) break;
    const __m512i codes = P::codes(block, count, pair);
    const __m512i groups = indices_16(2 * pair, 2 * pair, 2 * pair + 1, 2 * pair + 1);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const int8_t* a = x.codes + (r * x.groups + group + 2 * pair) * 32;
      const __m512i dot = _mm512_dpbusd_epi32(_mm512_setzero_si512(), codes, load_512(a));
      sums[pair % 2][r] = _mm512_fmadd_ps(
          _mm512_cvtepi32_ps(dot), _mm512_permutexvar_ps(groups, factors[r]), sums[pair % 2][r]);
    }
  }
}

template <Encoding kEncoding, int kRows>
inline __attribute__((always_inline)) void dot_pairs(const uint8_t* block, const Int8Rows& x,
                                                     int64_t groups, __m512 (&sums)[2][kRows]) {
  constexpr int kStepBytes = Pairs<kEncoding>::kStepBytes;
  int64_t group = 0;
  for (; group + 8 <= groups; group += 8, block += kStepBytes) {
    prefetch(block, kStepBytes);
    add_pairs<kEncoding, kRows>(block, 8, x, group, sums);
  }
  if (group == groups) return;
  prefetch(block, (groups - group) * kStepBytes / 8);
  add_pairs<kEncoding, kRows>(block, static_cast<int>(groups - group), x, group, sums);
}

// ---- Q2_K, Q3_K, Q6_K: sixteen groups of 16, four to a vector ----

template <Encoding kEncoding>
inline void unpack_sixteen(const uint8_t* block, __m512i (&codes)[4], __m512& scale,
                           __m512& offset) {
  Unpacked parts;
  Block<kEncoding>::unpack(block, parts);
  for (int i = 0; i < 4; ++i) codes[i] = load_512(parts.codes + 64 * i);
  scale = _mm512_loadu_ps(parts.scale);
  offset = _mm512_loadu_ps(parts.offset);
}
template <>
inline void unpack_sixteen<Encoding::kQ6_K>(const uint8_t* block, __m512i (&codes)[4],
                                            __m512& scale, __m512& offset) {
  const __m512i nibble = _mm512_set1_epi8(15), two = _mm512_set1_epi8(0x30);
  for (int half = 0; half < 2; ++half) {
    const __m512i low = load_512(block + 64 * half);
    // The top two bits of the four stretches of 32, moved to bits 4 and 5.
    const __m512i top = twice(block + 128 + 32 * half);
    const __m512i first =
        _mm512_sllv_epi16(top, halves(_mm256_set1_epi16(4), _mm256_set1_epi16(2)));
    const __m512i second =
        _mm512_srlv_epi16(top, halves(_mm256_setzero_si256(), _mm256_set1_epi16(2)));
    codes[2 * half] = _mm512_or_si512(_mm512_and_si512(low, nibble), _mm512_and_si512(first, two));
    codes[2 * half + 1] = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi16(low, 4), nibble),
                                          _mm512_and_si512(second, two));
  }
  const __m128i scales = _mm_loadu_si128(reinterpret_cast<const __m128i*>(block + 192));
  scale = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(scales)),
                        _mm512_set1_ps(load_f16(block + 208)));
  offset = _mm512_mul_ps(scale, _mm512_set1_ps(-32));
}

template <Encoding kEncoding, int kRows>
inline __attribute__((always_inline)) void dot_sixteens(const uint8_t* block, const Int8Rows& x,
                                                        int64_t groups, __m512 (&sums)[2][kRows]) {
  const __m512i doubled = _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
  for (int64_t group = 0; group < groups; group += 8, block += Block<kEncoding>::kBytes) {
    prefetch(block, Block<kEncoding>::kBytes);
    __m512i codes[4];
    __m512 scale, offset;
    unpack_sixteen<kEncoding>(block, codes, scale, offset);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const int64_t at = r * x.groups + group;
      const __m512 x_scale =
          _mm512_permutexvar_ps(doubled, _mm512_castps256_ps512(_mm256_loadu_ps(x.scales + at)));
      const __m512 factors = _mm512_mul_ps(scale, x_scale);
      sums[1][r] = _mm512_fmadd_ps(offset, _mm512_loadu_ps(x.half_sums + 2 * at), sums[1][r]);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        const __m512i a = load_512(x.codes + (at + 2 * i) * 32);
        const __m512i dot = _mm512_dpbusd_epi32(_mm512_setzero_si512(), codes[i], a);
        const __m512i of = indices_16(4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3);
        sums[i % 2][r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot),
                                         _mm512_permutexvar_ps(of, factors), sums[i % 2][r]);
      }
    }
  }
}

// ---- any of them ----

template <Encoding kEncoding, int kRows>
inline __attribute__((always_inline)) void dot_int8(const uint8_t* row, const Int8Rows& x,
                                                    int64_t in, __m512 (&sums)[kRows]) {
  __m512 parts[2][kRows];
  for (int r = 0; r < kRows; ++r) parts[0][r] = parts[1][r] = _mm512_setzero_ps();
  if constexpr (Block<kEncoding>::kGroup == 16) {
    dot_sixteens<kEncoding, kRows>(row, x, in / 32, parts);
  } else if constexpr (Block<kEncoding>::kElements == 256 || kEncoding == Encoding::kQ8_0) {
    dot_pairs<kEncoding, kRows>(row, x, in / 32, parts);
  } else {
    dot_quads<kEncoding, kRows>(row, x, in / 32, parts);
  }
  for (int r = 0; r < kRows; ++r) sums[r] = _mm512_add_ps(parts[0][r], parts[1][r]);
}

template <int kRows>
void few_rows_int8(const Weight& weight, const FewRows& x, int64_t first, int64_t count, float* y,
                   int64_t y_stride) {
  with_encoding(weight.encoding, [&]<Encoding kEncoding>() {
    const int64_t stride = x.in / Block<kEncoding>::kElements * Block<kEncoding>::kBytes;
    const uint8_t* w = static_cast<const uint8_t*>(weight.data) + first * stride;
    by_fours<kRows>(count, y, y_stride, [&](int64_t j, __m512(&sums)[kRows]) {
      dot_int8<kEncoding, kRows>(w + j * stride, x.int8, x.in, sums);
    });
  });
}

}  // namespace
}  // namespace ttpu::kernels::cpu
