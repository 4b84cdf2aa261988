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

// Codes of four bits: the first 16 of a block of 32 are in the low halves of its bytes, the others
// in the high.
void read_nibbles(const uint8_t* bytes, Block* block) {
  for (int i = 0; i < kSmall / 2; ++i) {
    block->codes[i] = static_cast<int8_t>(bytes[i] & 15);
    block->codes[i + 16] = static_cast<int8_t>(bytes[i] >> 4);
  }
}

void add_fifth_bits(const uint8_t* bytes, Block* block) {
  const uint32_t high = word_at(bytes);
  for (int i = 0; i < kSmall; ++i) {
    block->codes[i] = static_cast<int8_t>(block->codes[i] | ((high >> i) & 1) << 4);
  }
}

// Q4_0 to Q5_1: d, what is added, fifth bits, and codes of four bits, which lie about zero where
// nothing is added.
template <bool kAdds, bool kFifth>
void read_small(const uint8_t* bytes, Block* block) {
  block->scales[0] = half_at(bytes);
  if (kAdds) block->minima[0] = -half_at(bytes + 2);
  bytes += kAdds ? 4 : 2;
  read_nibbles(bytes + (kFifth ? 4 : 0), block);
  if (kFifth) add_fifth_bits(bytes, block);
  constexpr int kMiddle = kFifth ? 16 : 8;
  for (int i = 0; i < kSmall && !kAdds; ++i) {
    block->codes[i] = static_cast<int8_t>(block->codes[i] - kMiddle);
  }
}

void read_q8_0(const uint8_t* bytes, Block* block) {
  block->scales[0] = half_at(bytes);
  for (int i = 0; i < kSmall; ++i) block->codes[i] = static_cast<int8_t>(bytes[2 + i]);
}

// Of 256 codes of two bits, that at `i`.
int two_bits(const uint8_t* bytes, int i) {
  return (bytes[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2)) & 3;
}

// 16 scales and minima of 4 bits, 256 values of 2 bits, d, dmin.
void read_q2_k(const uint8_t* bytes, Block* block) {
  const float d = half_at(bytes + 80);
  const float dmin = half_at(bytes + 82);
  for (int group = 0; group < 16; ++group) {
    block->scales[group] = d * static_cast<float>(bytes[group] & 15);
    block->minima[group] = dmin * static_cast<float>(bytes[group] >> 4);
  }
  for (int i = 0; i < kSuper; ++i) block->codes[i] = static_cast<int8_t>(two_bits(bytes + 16, i));
}

// High bits (inverted), 256 values of 2 bits, 16 scales of 6 bits in 12 bytes, d.
void read_q3_k(const uint8_t* bytes, Block* block) {
  const uint8_t* packed = bytes + 96;
  const float d = half_at(bytes + 108);
  for (int i = 0; i < 16; ++i) {
    const int low = i < 8 ? packed[i] & 15 : packed[i - 8] >> 4;
    const int upper = (packed[8 + i % 4] >> (i / 4 * 2)) & 3;
    block->scales[i] = d * static_cast<float>((low | upper << 4) - 32);
  }
  for (int i = 0; i < kSuper; ++i) {
    const int missing = (bytes[i % 32] >> (i / 32)) & 1 ? 0 : 4;
    block->codes[i] = static_cast<int8_t>(two_bits(bytes + 32, i) - missing);
  }
}

// Eight scales and eight minima of 6 bits in 12 bytes, times d and dmin.
void read_k_scales(const uint8_t* bytes, Block* block) {
  const float d = half_at(bytes);
  const float dmin = half_at(bytes + 2);
  const uint8_t* packed = bytes + 4;
  for (int i = 0; i < 4; ++i) {
    const int scale = (packed[8 + i] & 15) | ((packed[i] >> 2) & 0x30);
    const int min = (packed[8 + i] >> 4) | ((packed[4 + i] >> 2) & 0x30);
    block->scales[i] = d * static_cast<float>(packed[i] & 63);
    block->minima[i] = dmin * static_cast<float>(packed[4 + i] & 63);
    block->scales[i + 4] = d * static_cast<float>(scale);
    block->minima[i + 4] = dmin * static_cast<float>(min);
  }
}

// Of 256 codes of four bits, 32 in the low halves of 32 bytes and the next 32 in the high.
void read_k_nibbles(const uint8_t* bytes, Block* block) {
  for (int i = 0; i < kSuper; ++i) {
    block->codes[i] = static_cast<int8_t>((bytes[i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4)) & 15);
  }
}

void read_q4_k(const uint8_t* bytes, Block* block) {
  read_k_scales(bytes, block);
  read_k_nibbles(bytes + 16, block);
}

void read_q5_k(const uint8_t* bytes, Block* block) {
  read_k_scales(bytes, block);
  read_k_nibbles(bytes + 48, block);
  for (int i = 0; i < kSuper; ++i) {
    const int fifth = (bytes[16 + i % 32] >> (i / 32)) & 1;
    block->codes[i] = static_cast<int8_t>(block->codes[i] | fifth << 4);
  }
}

// Low 4 bits, high 2 bits, 16 scales of 8 bits, d.
void read_q6_k(const uint8_t* bytes, Block* block) {
  const float d = half_at(bytes + 208);
  for (int group = 0; group < 16; ++group) {
    block->scales[group] = d * static_cast<float>(static_cast<int8_t>(bytes[192 + group]));
  }
  for (int i = 0; i < kSuper; ++i) {
    const int lower = (bytes[i / 128 * 64 + i % 64] >> (i % 128 / 64 * 4)) & 15;
    block->codes[i] = static_cast<int8_t>((lower | two_bits(bytes + 128, i) << 4) - 32);
  }
}

struct Reader {
  void (*read)(const uint8_t*, Block*);
  int group;
};

Reader reader_of(Encoding encoding) {
  switch (encoding) {
    case Encoding::kQ4_0:
      return {read_small<false, false>, 32};
    case Encoding::kQ4_1:
      return {read_small<true, false>, 32};
    case Encoding::kQ5_0:
      return {read_small<false, true>, 32};
    case Encoding::kQ5_1:
      return {read_small<true, true>, 32};
    case Encoding::kQ8_0:
      return {read_q8_0, 32};
    case Encoding::kQ2_K:
      return {read_q2_k, 16};
    case Encoding::kQ3_K:
      return {read_q3_k, 16};
    case Encoding::kQ4_K:
      return {read_q4_k, 32};
    case Encoding::kQ5_K:
      return {read_q5_k, 32};
    case Encoding::kQ6_K:
      return {read_q6_k, 16};
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

int block_group(Encoding encoding) { return reader_of(encoding).group; }

Block read_block(Encoding encoding, const std::byte* bytes) {
  Block block;
  reader_of(encoding).read(reinterpret_cast<const uint8_t*>(bytes), &block);
  return block;
}

void dequantize_row(Encoding encoding, const std::byte* blocks, int64_t elements, float* out) {
  const Reader reader = reader_of(encoding);
  check_blocks(encoding, elements);
  const int64_t per_block = block_elements(encoding);
  const auto* bytes = reinterpret_cast<const uint8_t*>(blocks);
  Block block;
  for (int64_t done = 0; done < elements; done += per_block) {
    reader.read(bytes, &block);
    for (int64_t begin = 0; begin < per_block; begin += reader.group) {
      const float scale = block.scales[begin / reader.group];
      const float minimum = block.minima[begin / reader.group];
      for (int64_t i = begin; i < begin + reader.group; ++i) {
        out[done + i] = scale * static_cast<float>(block.codes[i]) - minimum;
      }
    }
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
