// ggml's blocks taken apart: element = scale[group] * code + offset[group], with unsigned codes.
// Layouts: ggml-common.h of llama.cpp. Included by the files of each instruction set only; all of
// it has internal linkage, so that code for one instruction set cannot be linked into another's.
#pragma once

#include <cstdint>
#include <cstring>

#include "ttpu/base/dtype.h"
#include "ttpu/base/encoding.h"

#if defined(__F16C__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace ttpu::kernels::cpu {
namespace {

inline uint16_t load_u16(const uint8_t* from) {
  uint16_t value = 0;
  std::memcpy(&value, from, sizeof value);
  return value;
}

inline float f32_of_f16(uint16_t bits) {
#if defined(__F16C__)
  return _cvtsh_ss(bits);
#else
  return ttpu::f32_from_f16(bits);
#endif
}

inline float load_f16(const uint8_t* from) { return f32_of_f16(load_u16(from)); }

// The parts of one block: up to 256 codes, up to 16 groups.
struct Unpacked {
  alignas(64) uint8_t codes[256];
  float scale[16];
  float offset[16];
};

template <Encoding kEncoding>
struct Block;

#if defined(__AVX2__)
inline __m256i nibbles_of(const uint8_t* from) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return _mm256_and_si256(
      _mm256_inserti128_si256(_mm256_castsi128_si256(bytes), _mm_srli_epi16(bytes, 4), 1),
      _mm256_set1_epi8(15));
}
#endif

// 32 codes of four bits: the low halves of 16 bytes, then the high ones.
inline void unpack_nibbles(const uint8_t* __restrict from, uint8_t* __restrict codes) {
#if defined(__AVX2__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes), nibbles_of(from));
#else
  for (int i = 0; i < 16; ++i) {
    codes[i] = from[i] & 15;
    codes[i + 16] = from[i] >> 4;
  }
#endif
}

// The same with a fifth bit each.
inline void unpack_five_bits(const uint8_t* __restrict from, const uint8_t* __restrict fifth,
                             uint8_t* __restrict codes) {
  uint32_t bits = 0;
  std::memcpy(&bits, fifth, sizeof bits);
#if defined(__AVX2__)
  // Each byte takes the byte of `bits` that holds its bit, and tests that bit.
  const __m256i holders = _mm256_shuffle_epi8(
      _mm256_set1_epi32(static_cast<int>(bits)),
      _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303));
  const __m256i bit = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201));
  const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(holders, bit), bit);
  _mm256_storeu_si256(
      reinterpret_cast<__m256i*>(codes),
      _mm256_or_si256(nibbles_of(from), _mm256_and_si256(set, _mm256_set1_epi8(16))));
#else
  unpack_nibbles(from, codes);
  for (int i = 0; i < 32; ++i) codes[i] |= static_cast<uint8_t>(((bits >> i) & 1) << 4);
#endif
}

// `count` codes, a multiple of 16, to scale * code + offset.
inline void widen_codes(const uint8_t* __restrict codes, float scale, float offset, int count,
                        float* __restrict to) {
#if defined(__AVX512F__)
  const __m512 by = _mm512_set1_ps(scale), plus = _mm512_set1_ps(offset);
  for (int i = 0; i < count; i += 16) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + i));
    const __m512 numbers = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
    _mm512_storeu_ps(to + i, _mm512_fmadd_ps(by, numbers, plus));
  }
#elif defined(__AVX2__)
  const __m256 by = _mm256_set1_ps(scale), plus = _mm256_set1_ps(offset);
  for (int i = 0; i < count; i += 8) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes + i));
    const __m256 numbers = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
    _mm256_storeu_ps(to + i, _mm256_fmadd_ps(by, numbers, plus));
  }
#else
  for (int i = 0; i < count; ++i) to[i] = scale * static_cast<float>(codes[i]) + offset;
#endif
}

template <>
struct Block<Encoding::kQ4_0> {
  static constexpr int kElements = 32, kBytes = 18, kGroup = 32;
  static void unpack(const uint8_t* __restrict block, Unpacked& __restrict out) {
    out.scale[0] = load_f16(block);
    out.offset[0] = -8 * out.scale[0];
    unpack_nibbles(block + 2, out.codes);
  }
};

template <>
struct Block<Encoding::kQ4_1> {
  static constexpr int kElements = 32, kBytes = 20, kGroup = 32;
  static void unpack(const uint8_t* __restrict block, Unpacked& __restrict out) {
    out.scale[0] = load_f16(block);
    out.offset[0] = load_f16(block + 2);
    unpack_nibbles(block + 4, out.codes);
  }
};

template <>
struct Block<Encoding::kQ5_0> {
  static constexpr int kElements = 32, kBytes = 22, kGroup = 32;
  static void unpack(const uint8_t* __restrict block, Unpacked& __restrict out) {
    out.scale[0] = load_f16(block);
    out.offset[0] = -16 * out.scale[0];
    unpack_five_bits(block + 6, block + 2, out.codes);
  }
};

template <>
struct Block<Encoding::kQ5_1> {
  static constexpr int kElements = 32, kBytes = 24, kGroup = 32;
  static void unpack(const uint8_t* __restrict block, Unpacked& __restrict out) {
    out.scale[0] = load_f16(block);
    out.offset[0] = load_f16(block + 2);
    unpack_five_bits(block + 8, block + 4, out.codes);
  }
};

template <>
struct Block<Encoding::kQ8_0> {
  static constexpr int kElements = 32, kBytes = 34, kGroup = 32;
  static void unpack(const uint8_t* __restrict block, Unpacked& __restrict out) {
    out.scale[0] = load_f16(block);
    out.offset[0] = -128 * out.scale[0];
    for (int i = 0; i < 32; ++i) out.codes[i] = block[2 + i] ^ 0x80;
  }
};

template <>
struct Block<Encoding::kQ2_K> {
  static constexpr int kElements = 256, kBytes = 84, kGroup = 16;
  static void unpack(const uint8_t* __restrict block, Unpacked& __restrict out) {
    const float d = load_f16(block + 80), dmin = load_f16(block + 82);
    for (int g = 0; g < 16; ++g) {
      out.scale[g] = d * static_cast<float>(block[g] & 15);
      out.offset[g] = -dmin * static_cast<float>(block[g] >> 4);
    }
    for (int half = 0; half < 2; ++half) {
      const uint8_t* from = block + 16 + 32 * half;
      for (int part = 0; part < 4; ++part) {
        uint8_t* codes = out.codes + 128 * half + 32 * part;
        for (int i = 0; i < 32; ++i) codes[i] = (from[i] >> (2 * part)) & 3;
      }
    }
  }
};

template <>
struct Block<Encoding::kQ3_K> {
  static constexpr int kElements = 256, kBytes = 110, kGroup = 16;
  static void unpack(const uint8_t* __restrict block, Unpacked& __restrict out) {
    const float d = load_f16(block + 108);
    uint32_t low[2] = {}, high = 0;
    std::memcpy(low, block + 96, 8);
    std::memcpy(&high, block + 104, 4);
    for (int g = 0; g < 16; ++g) {
      const uint32_t four = (low[(g / 4) % 2] >> (8 * (g % 4) + 4 * (g / 8))) & 15;
      const uint32_t two = (high >> (8 * (g % 4) + 2 * (g / 4))) & 3;
      out.scale[g] = d * static_cast<float>(static_cast<int>(four | (two << 4)) - 32);
      out.offset[g] = -4 * out.scale[g];
    }
    for (int half = 0; half < 2; ++half) {
      const uint8_t* from = block + 32 + 32 * half;
      for (int part = 0; part < 4; ++part) {
        uint8_t* codes = out.codes + 128 * half + 32 * part;
        const int bit = 4 * half + part;
        for (int i = 0; i < 32; ++i) {
          codes[i] =
              static_cast<uint8_t>(((from[i] >> (2 * part)) & 3) | (((block[i] >> bit) & 1) << 2));
        }
      }
    }
  }
};

// The eight 6-bit scales and minima of Q4_K and Q5_K.
inline void unpack_scales_k4(const uint8_t* block, Unpacked& out) {
  const float d = load_f16(block), dmin = load_f16(block + 2);
  const uint8_t* q = block + 4;
  for (int g = 0; g < 4; ++g) {
    out.scale[g] = d * static_cast<float>(q[g] & 63);
    out.offset[g] = -dmin * static_cast<float>(q[g + 4] & 63);
    out.scale[g + 4] = d * static_cast<float>((q[g + 8] & 15) | ((q[g] >> 6) << 4));
    out.offset[g + 4] = -dmin * static_cast<float>((q[g + 8] >> 4) | ((q[g + 4] >> 6) << 4));
  }
}

template <>
struct Block<Encoding::kQ4_K> {
  static constexpr int kElements = 256, kBytes = 144, kGroup = 32;
  static void unpack(const uint8_t* __restrict block, Unpacked& __restrict out) {
    unpack_scales_k4(block, out);
    for (int part = 0; part < 4; ++part) {
      const uint8_t* from = block + 16 + 32 * part;
      uint8_t* codes = out.codes + 64 * part;
      for (int i = 0; i < 32; ++i) codes[i] = from[i] & 15;
      for (int i = 0; i < 32; ++i) codes[i + 32] = from[i] >> 4;
    }
  }
};

template <>
struct Block<Encoding::kQ5_K> {
  static constexpr int kElements = 256, kBytes = 176, kGroup = 32;
  static void unpack(const uint8_t* __restrict block, Unpacked& __restrict out) {
    unpack_scales_k4(block, out);
    const uint8_t* fifth = block + 16;
    for (int part = 0; part < 4; ++part) {
      const uint8_t* from = block + 48 + 32 * part;
      uint8_t* codes = out.codes + 64 * part;
      for (int i = 0; i < 32; ++i) {
        codes[i] = static_cast<uint8_t>((from[i] & 15) | (((fifth[i] >> (2 * part)) & 1) << 4));
      }
      for (int i = 0; i < 32; ++i) {
        codes[i + 32] =
            static_cast<uint8_t>((from[i] >> 4) | (((fifth[i] >> (2 * part + 1)) & 1) << 4));
      }
    }
  }
};

template <>
struct Block<Encoding::kQ6_K> {
  static constexpr int kElements = 256, kBytes = 210, kGroup = 16;
  static void unpack(const uint8_t* __restrict block, Unpacked& __restrict out) {
    const float d = load_f16(block + 208);
    for (int g = 0; g < 16; ++g) {
      out.scale[g] = d * static_cast<float>(static_cast<int8_t>(block[192 + g]));
      out.offset[g] = -32 * out.scale[g];
    }
    for (int half = 0; half < 2; ++half) {
      const uint8_t* low = block + 64 * half;
      const uint8_t* high = block + 128 + 32 * half;
      uint8_t* codes = out.codes + 128 * half;
      for (int i = 0; i < 32; ++i) {
        codes[i] = static_cast<uint8_t>((low[i] & 15) | ((high[i] & 3) << 4));
        codes[i + 32] = static_cast<uint8_t>((low[i + 32] & 15) | (((high[i] >> 2) & 3) << 4));
        codes[i + 64] = static_cast<uint8_t>((low[i] >> 4) | (((high[i] >> 4) & 3) << 4));
        codes[i + 96] = static_cast<uint8_t>((low[i + 32] >> 4) | ((high[i] >> 6) << 4));
      }
    }
  }
};

// `count` elements (a whole number of blocks) to f32.
template <Encoding kEncoding>
void expand_blocks(const uint8_t* __restrict from, int64_t count, float* __restrict to) {
  using B = Block<kEncoding>;
  Unpacked parts;
  for (int64_t k = 0; k < count; k += B::kElements, from += B::kBytes, to += B::kElements) {
    B::unpack(from, parts);
    for (int g = 0; g < B::kElements / B::kGroup; ++g) {
      const int at = g * B::kGroup;
      widen_codes(parts.codes + at, parts.scale[g], parts.offset[g], B::kGroup, to + at);
    }
  }
}

// Calls visit.template operator()<kEncoding>() for a blocked encoding.
template <typename Visit>
void with_encoding(Encoding encoding, Visit&& visit) {
  switch (encoding) {
    case Encoding::kQ4_0:
      return visit.template operator()<Encoding::kQ4_0>();
    case Encoding::kQ4_1:
      return visit.template operator()<Encoding::kQ4_1>();
    case Encoding::kQ5_0:
      return visit.template operator()<Encoding::kQ5_0>();
    case Encoding::kQ5_1:
      return visit.template operator()<Encoding::kQ5_1>();
    case Encoding::kQ8_0:
      return visit.template operator()<Encoding::kQ8_0>();
    case Encoding::kQ2_K:
      return visit.template operator()<Encoding::kQ2_K>();
    case Encoding::kQ3_K:
      return visit.template operator()<Encoding::kQ3_K>();
    case Encoding::kQ4_K:
      return visit.template operator()<Encoding::kQ4_K>();
    case Encoding::kQ5_K:
      return visit.template operator()<Encoding::kQ5_K>();
    case Encoding::kQ6_K:
      return visit.template operator()<Encoding::kQ6_K>();
    case Encoding::kDense:
      return;
  }
}

}  // namespace
}  // namespace ttpu::kernels::cpu
