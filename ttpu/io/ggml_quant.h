// The block encodings of ggml (ggml-common.h, ggml-quants.c), as the Python package `gguf` reads
// and writes them, to the bit, in float32.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ttpu/base/encoding.h"

namespace ttpu::io {

// `elements` values (whole blocks, else kInvalidArgument) from `blocks` to `out`. Every byte
// pattern is a valid block.
void dequantize_row(Encoding encoding, const std::byte* blocks, int64_t elements, float* out);

// The inverse, for Q8_0, Q4_0 and Q4_1; kUnimplemented for the others.
void quantize_row(Encoding encoding, const float* values, int64_t elements, std::byte* blocks);

}  // namespace ttpu::io
