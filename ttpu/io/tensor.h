// One weight of a checkpoint where it lies in its mapped file, and the ways to copy it out.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "ttpu/base/dtype.h"
#include "ttpu/base/encoding.h"
#include "ttpu/base/file.h"
#include "ttpu/base/shape.h"

namespace ttpu::io {

class Composite;

// What has to be done to the stored values to get the weight as transformers has it. Files written
// by llama.cpp's converter need it; safetensors never do.
struct Transform {
  // Rows are stored with the two halves of each head interleaved (llama.cpp's rotary layout); this
  // is the number of heads to undo it for. 0: rows are in order.
  int64_t permute_heads = 0;
  // Added to every value (in float32, before rounding): -1 where a norm is stored as 1 + w.
  float add = 0;
  // Rows are stored as all of q, all of k, all of v; wanted is q, k, v of each head (GPT-NeoX). The
  // number of heads. 0: rows are in order.
  int64_t interleave_heads = 0;
  // Stored transposed: dims are those after transposing.
  bool transpose = false;
  // Stored as ggml's blocks of MXFP4, which no kernel computes with; dtype is kBF16.
  bool mxfp4 = false;
  // Put together from other tensors; there are no bytes then (see composite.h).
  std::shared_ptr<const Composite> composite = nullptr;

  bool operator==(const Transform&) const = default;
  // Only rows move: encoded blocks can be kept.
  bool keeps_blocks() const { return add == 0 && !transpose && !mxfp4 && composite == nullptr; }
  bool moves_rows() const { return permute_heads != 0 || interleave_heads != 0; }
};

struct Tensor {
  std::string name;
  Encoding encoding = Encoding::kDense;
  DType dtype = DType::kF32;  // of the elements when dense; kF32 otherwise
  Dims dims;                  // row-major, outermost first, as PyTorch has them
  std::span<const std::byte> bytes = {};
  const MappedFile* file = nullptr;  // where `bytes` point into, or null
  Transform transform = {};

  int64_t num_elements() const;
  // A row is the innermost dimension; a vector is one row (but a row a value when rows move).
  int64_t row_elements() const;
  int64_t rows() const;
};

// The dense array that `tensor` stands for: dequantized, transformed, converted to `to`, at `out`
// (num_elements() values). Floating types convert among each other, rounding to nearest even;
// integers and booleans only to themselves, F32 or F64. Throws kInvalidArgument otherwise.
void copy_tensor(const Tensor& tensor, DType to, std::byte* out);

// Rows [begin, end) alone; `out` receives (end - begin) * row_elements() values. Ranges of one
// tensor may be copied by several threads at once. Throws kOutOfRange.
void copy_rows(const Tensor& tensor, int64_t begin, int64_t end, DType to, std::byte* out);

// Rows [begin, end) as they are encoded, in order. Throws kFailedPrecondition when the transform
// changes values (see Transform::keeps_blocks) and kOutOfRange.
void copy_encoded_rows(const Tensor& tensor, int64_t begin, int64_t end, std::byte* out);
// Bytes of one row as stored.
int64_t encoded_row_bytes(const Tensor& tensor);

// One float32 from the stored bits of an f16, much faster than going through the C library.
inline float fast_f32_from_f16(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t magnitude = bits & 0x7fffu;
  if (magnitude >= 0x7c00u) {  // infinity and NaN
    return std::bit_cast<float>(sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13));
  }
  // Shifted into place the exponent is too small by 112; the product mends it, subnormals included.
  const float scaled = std::bit_cast<float>(magnitude << 13) * 0x1p112f;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(scaled) | sign);
}

}  // namespace ttpu::io
