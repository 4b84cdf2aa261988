// MXFP4 of the OCP Microscaling specification: 32 values of 4 bits (f4E2M1FN: a sign, two bits of
// exponent, one of mantissa) with one scale, a power of two. bf16 holds every value exactly.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "ttpu/io/tensor.h"

namespace ttpu::io {

constexpr int64_t kMxfp4Elements = 32;
constexpr int64_t kMxfp4GgmlBytes = 17;  // a block of ggml: the scale, then 16 bytes

// What a scale's byte stands for: an exponent with bias 127, and 255 is NaN.
float mxfp4_scale(uint8_t exponent);

// `count` values (whole blocks) as ggml stores them: the first 16 values of a block are in the low
// halves of its bytes, the others in the high.
void mxfp4_from_ggml(const std::byte* blocks, size_t count, float* out);

// A QuantizedMatrix [.., out, in] of blocks [.., out, in / 32, 16], where neighbours share a byte,
// and scales [.., out, in / 32], or of a tensor in ggml's blocks.
Tensor mxfp4_matrix(std::string name, const Tensor& blocks, const Tensor& scales);
Tensor mxfp4_matrix(const Tensor& ggml);

}  // namespace ttpu::io
