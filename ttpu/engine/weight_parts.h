// Parts of weights, for devices that each have one. Internal to the weight loader.
#pragma once

#include <cstddef>
#include <memory>

#include "ttpu/engine/weight_loader.h"
#include "ttpu/io/composite.h"

namespace ttpu::engine {

constexpr size_t kAlignment = 64;  // of memory that a buffer may become without a copy

std::shared_ptr<std::byte> aligned_bytes(int64_t size);

// The checkpoint has the weight in another order than programs want it.
inline bool reordered(const nn::WeightDecl& decl) {
  return decl.transposed || decl.row_stride != 1;
}

// The matrix that has the weight's rows in the checkpoint quantized, if any, and which they are.
io::QuantizedOutputs quantized_rows(const nn::WeightDecl& decl, const io::Tensor& tensor);

// Of the weight's argument in the host's memory, where 4-bit numbers lie one to a byte.
int64_t host_bytes(const nn::WeightDecl& decl);

// What was read as [.., out, in] as the argument has it, both in the host's memory: values of
// groups lie by groups.
std::shared_ptr<std::byte> in_argument_order(const nn::WeightDecl& decl,
                                             std::shared_ptr<std::byte> values);

// The blocks of ggml that hold the values of a quantized matrix of so many columns, with scales and
// zero points as f16: kDense where there are none.
Encoding blocks_of(const Quantization& quantization, int64_t columns);

// The same weight undivided.
inline nn::WeightDecl whole(const nn::WeightDecl& decl) {
  nn::WeightDecl result = decl;
  result.placement.clear();
  result.local.clear();
  return result;
}

}  // namespace ttpu::engine
