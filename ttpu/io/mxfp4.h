// MXFP4 of the OCP Microscaling specification: 32 values of 4 bits (a sign, two bits of exponent,
// one of mantissa) with one scale, a power of two. bf16 holds every value exactly.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ttpu::io {

constexpr int64_t kMxfp4Elements = 32;
constexpr int64_t kMxfp4GgmlBytes = 17;  // a block of ggml: the scale, then 16 bytes

// One value; `scale` is an exponent with bias 127, and 255 is NaN.
float mxfp4_value(int code, uint8_t scale);

// `count` values (whole blocks) as ggml stores them: the first 16 values of a block are in the low
// halves of its bytes, the others in the high.
void mxfp4_from_ggml(const std::byte* blocks, size_t count, float* out);

}  // namespace ttpu::io
