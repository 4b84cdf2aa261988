// The block encodings of ggml (ggml-common.h, ggml-quants.c), as the Python package `gguf` reads
// and writes them, to the bit, in float32.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ttpu/base/encoding.h"

namespace ttpu::io {

// What a block says: a number is scale * code - minimum, of its group.
struct Block {
  int8_t codes[256];
  float scales[16];
  float minima[16] = {};  // zeros where the encoding has none
};

// Codes that share a scale and a minimum: 16 or 32.
int block_group(Encoding encoding);
// kInvalidArgument for kDense. Every byte pattern is a valid block.
Block read_block(Encoding encoding, const std::byte* bytes);

// `elements` values (whole blocks, else kInvalidArgument) from `blocks` to `out`.
void dequantize_row(Encoding encoding, const std::byte* blocks, int64_t elements, float* out);

// The inverse, for Q8_0, Q4_0 and Q4_1; kUnimplemented for the others.
void quantize_row(Encoding encoding, const float* values, int64_t elements, std::byte* blocks);

}  // namespace ttpu::io
