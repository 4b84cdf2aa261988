#include "ttpu/io/ggml_quant.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "ttpu/base/error.h"
#include "ttpu/io/tensor.h"

namespace ttpu::io {
namespace {

constexpr int kSmall = 32;   // elements of a block of the simple encodings
constexpr int kSuper = 256;  // elements of a block of the K encodings

float half_at(const uint8_t* bytes) {
  uint16_t bits = 0;
  std::memcpy(&bits, bytes, 2);
  return fast_f32_from_f16(bits);
}

void put_half(uint8_t* bytes, float value) {
  const uint16_t bits = f16_from_f32(value);
  std::memcpy(bytes, &bits, 2);
}

uint32_t word_at(const uint8_t* bytes) {
  uint32_t word = 0;
  std::memcpy(&word, bytes, 4);
  return word;
}

// The first 16 values of a block of 32 are in the low halves of its bytes, the others in the high.
void dequantize_q4_0(const uint8_t* block, float* out) {
  const float d = half_at(block);
  for (int i = 0; i < kSmall / 2; ++i) {
    out[i] = d * static_cast<float>((block[2 + i] & 15) - 8);
    out[i + 16] = d * static_cast<float>((block[2 + i] >> 4) - 8);
  }
}

void dequantize_q4_1(const uint8_t* block, float* out) {
  const float d = half_at(block);
  const float m = half_at(block + 2);
  for (int i = 0; i < kSmall / 2; ++i) {
    out[i] = d * static_cast<float>(block[4 + i] & 15) + m;
    out[i + 16] = d * static_cast<float>(block[4 + i] >> 4) + m;
  }
}

void dequantize_q5_0(const uint8_t* block, float* out) {
  const float d = half_at(block);
  const uint32_t high = word_at(block + 2);
  for (int i = 0; i < kSmall / 2; ++i) {
    const int low = (block[6 + i] & 15) | static_cast<int>((high >> i) & 1) << 4;
    const int upper = (block[6 + i] >> 4) | static_cast<int>((high >> (i + 16)) & 1) << 4;
    out[i] = d * static_cast<float>(low - 16);
    out[i + 16] = d * static_cast<float>(upper - 16);
  }
}

void dequantize_q5_1(const uint8_t* block, float* out) {
  const float d = half_at(block);
  const float m = half_at(block + 2);
  const uint32_t high = word_at(block + 4);
  for (int i = 0; i < kSmall / 2; ++i) {
    const int low = (block[8 + i] & 15) | static_cast<int>((high >> i) & 1) << 4;
    const int upper = (block[8 + i] >> 4) | static_cast<int>((high >> (i + 16)) & 1) << 4;
    out[i] = d * static_cast<float>(low) + m;
    out[i + 16] = d * static_cast<float>(upper) + m;
  }
}

void dequantize_q8_0(const uint8_t* block, float* out) {
  const float d = half_at(block);
  for (int i = 0; i < kSmall; ++i)
    out[i] = static_cast<float>(static_cast<int8_t>(block[2 + i])) * d;
}

// 16 scales and minima of 4 bits, 256 values of 2 bits, d, dmin.
void dequantize_q2_k(const uint8_t* block, float* out) {
  const uint8_t* scales = block;
  const uint8_t* quants = block + 16;
  const float d = half_at(block + 80);
  const float dmin = half_at(block + 82);
  for (int i = 0; i < kSuper; ++i) {
    const int group = i / 16;
    const float scale = d * static_cast<float>(scales[group] & 15);
    const float min = dmin * static_cast<float>(scales[group] >> 4);
    const int q = (quants[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2)) & 3;
    out[i] = scale * static_cast<float>(q) - min;
  }
}

// High bits (inverted), 256 values of 2 bits, 16 scales of 6 bits in 12 bytes, d.
void dequantize_q3_k(const uint8_t* block, float* out) {
  const uint8_t* high = block;
  const uint8_t* quants = block + 32;
  const uint8_t* packed = block + 96;
  const float d = half_at(block + 108);
  float scales[16];
  for (int i = 0; i < 16; ++i) {
    const int low = i < 8 ? packed[i] & 15 : packed[i - 8] >> 4;
    const int upper = (packed[8 + i % 4] >> (i / 4 * 2)) & 3;
    scales[i] = d * static_cast<float>((low | upper << 4) - 32);
  }
  for (int i = 0; i < kSuper; ++i) {
    const int low = (quants[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2)) & 3;
    const int missing = (high[i % 32] >> (i / 32)) & 1 ? 0 : 4;
    out[i] = scales[i / 16] * static_cast<float>(low - missing);
  }
}

// Eight scales and eight minima of 6 bits in 12 bytes, times d and dmin.
struct ScalesAndMins {
  float scales[8];
  float mins[8];
};

ScalesAndMins unpack_k_scales(const uint8_t* block) {
  const float d = half_at(block);
  const float dmin = half_at(block + 2);
  const uint8_t* packed = block + 4;
  ScalesAndMins result;
  for (int i = 0; i < 4; ++i) {
    const int scale = (packed[8 + i] & 15) | ((packed[i] >> 2) & 0x30);
    const int min = (packed[8 + i] >> 4) | ((packed[4 + i] >> 2) & 0x30);
    result.scales[i] = d * static_cast<float>(packed[i] & 63);
    result.mins[i] = dmin * static_cast<float>(packed[4 + i] & 63);
    result.scales[i + 4] = d * static_cast<float>(scale);
    result.mins[i + 4] = dmin * static_cast<float>(min);
  }
  return result;
}

void dequantize_q4_k(const uint8_t* block, float* out) {
  const ScalesAndMins k = unpack_k_scales(block);
  const uint8_t* quants = block + 16;
  for (int group = 0; group < 8; ++group) {
    const int shift = group % 2 * 4;
    for (int i = 0; i < 32; ++i) {
      const int q = (quants[group / 2 * 32 + i] >> shift) & 15;
      out[group * 32 + i] = k.scales[group] * static_cast<float>(q) - k.mins[group];
    }
  }
}

void dequantize_q5_k(const uint8_t* block, float* out) {
  const ScalesAndMins k = unpack_k_scales(block);
  const uint8_t* high = block + 16;
  const uint8_t* quants = block + 48;
  for (int group = 0; group < 8; ++group) {
    const int shift = group % 2 * 4;
    for (int i = 0; i < 32; ++i) {
      const int low = (quants[group / 2 * 32 + i] >> shift) & 15;
      const int q = low | ((high[i] >> group) & 1) << 4;
      out[group * 32 + i] = k.scales[group] * static_cast<float>(q) - k.mins[group];
    }
  }
}

// Low 4 bits, high 2 bits, 16 scales of 8 bits, d.
void dequantize_q6_k(const uint8_t* block, float* out) {
  const uint8_t* low = block;
  const uint8_t* high = block + 128;
  const uint8_t* scales = block + 192;
  const float d = half_at(block + 208);
  for (int group = 0; group < 8; ++group) {
    const int half = group / 4;
    for (int i = 0; i < 32; ++i) {
      const int index = group * 32 + i;
      const int lower = (low[half * 64 + group % 2 * 32 + i] >> (group % 4 / 2 * 4)) & 15;
      const int upper = (high[half * 32 + i] >> (group % 4 * 2)) & 3;
      const float scale = d * static_cast<float>(static_cast<int8_t>(scales[index / 16]));
      out[index] = scale * static_cast<float>((lower | upper << 4) - 32);
    }
  }
}

using Dequantize = void (*)(const uint8_t*, float*);

Dequantize dequantizer(Encoding encoding) {
  switch (encoding) {
    case Encoding::kQ4_0:
      return dequantize_q4_0;
    case Encoding::kQ4_1:
      return dequantize_q4_1;
    case Encoding::kQ5_0:
      return dequantize_q5_0;
    case Encoding::kQ5_1:
      return dequantize_q5_1;
    case Encoding::kQ8_0:
      return dequantize_q8_0;
    case Encoding::kQ2_K:
      return dequantize_q2_k;
    case Encoding::kQ3_K:
      return dequantize_q3_k;
    case Encoding::kQ4_K:
      return dequantize_q4_k;
    case Encoding::kQ5_K:
      return dequantize_q5_k;
    case Encoding::kQ6_K:
      return dequantize_q6_k;
    case Encoding::kDense:
      break;
  }
  fail(Code::kInvalidArgument, "[ggml] dense values have no blocks to dequantize");
}

float inverse(float d) { return d == 0 ? 0 : 1 / d; }

// Truncates; what leaves [0, 15] or is NaN is clamped.
uint8_t nibble(float value) {
  if (!(value >= 0)) return 0;
  return static_cast<uint8_t>(std::min(value, 15.0f));
}

void quantize_q4_0(const float* x, uint8_t* block) {
  float extreme = x[0];
  for (int i = 1; i < kSmall; ++i) {
    if (std::fabs(x[i]) > std::fabs(extreme)) extreme = x[i];
  }
  const float d = extreme / -8;
  const float id = inverse(d);
  put_half(block, d);
  for (int i = 0; i < kSmall / 2; ++i) {
    const uint8_t low = nibble(x[i] * id + 8.5f);
    const uint8_t high = nibble(x[i + 16] * id + 8.5f);
    block[2 + i] = static_cast<uint8_t>(low | high << 4);
  }
}

void quantize_q4_1(const float* x, uint8_t* block) {
  const auto [min, max] = std::minmax_element(x, x + kSmall);
  const float m = *min;
  const float d = (*max - m) / 15;
  const float id = inverse(d);
  put_half(block, d);
  put_half(block + 2, m);
  for (int i = 0; i < kSmall / 2; ++i) {
    const uint8_t low = nibble((x[i] - m) * id + 0.5f);
    const uint8_t high = nibble((x[i + 16] - m) * id + 0.5f);
    block[4 + i] = static_cast<uint8_t>(low | high << 4);
  }
}

void quantize_q8_0(const float* x, uint8_t* block) {
  float largest = 0;
  for (int i = 0; i < kSmall; ++i) largest = std::max(largest, std::fabs(x[i]));
  const float d = largest / 127;
  const float id = inverse(d);
  put_half(block, d);
  for (int i = 0; i < kSmall; ++i) {
    const float q = std::round(x[i] * id);  // halves away from zero
    const float clamped = std::isnan(q) ? 0 : std::clamp(q, -128.0f, 127.0f);
    block[2 + i] = static_cast<uint8_t>(static_cast<int8_t>(clamped));
  }
}

void check_blocks(Encoding encoding, int64_t elements) {
  const int64_t block = block_elements(encoding);
  require(block > 0 && elements >= 0 && elements % block == 0,
          "[ggml] {} values are not whole {} blocks (of {})", elements, encoding_name(encoding),
          block);
}

}  // namespace

void dequantize_row(Encoding encoding, const std::byte* blocks, int64_t elements, float* out) {
  const Dequantize dequantize = dequantizer(encoding);
  check_blocks(encoding, elements);
  const int64_t per_block = block_elements(encoding);
  const auto* bytes = reinterpret_cast<const uint8_t*>(blocks);
  for (int64_t done = 0; done < elements; done += per_block) {
    dequantize(bytes, out + done);
    bytes += block_bytes(encoding);
  }
}

void quantize_row(Encoding encoding, const float* values, int64_t elements, std::byte* blocks) {
  check_blocks(encoding, elements);
  auto* bytes = reinterpret_cast<uint8_t*>(blocks);
  for (int64_t done = 0; done < elements; done += kSmall) {
    if (encoding == Encoding::kQ4_0) {
      quantize_q4_0(values + done, bytes);
    } else if (encoding == Encoding::kQ4_1) {
      quantize_q4_1(values + done, bytes);
    } else if (encoding == Encoding::kQ8_0) {
      quantize_q8_0(values + done, bytes);
    } else {
      fail(Code::kUnimplemented, "[ggml] nothing here quantizes to {}; use Q8_0, Q4_0 or Q4_1",
           encoding_name(encoding));
    }
    bytes += block_bytes(encoding);
  }
}

}  // namespace ttpu::io
