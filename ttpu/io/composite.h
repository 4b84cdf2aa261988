// Weights that are put together from several stored ones when they are read.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ttpu/io/tensor.h"

namespace ttpu::io {

class QuantizedMatrix;
struct QuantizedRows;

class Composite {
 public:
  explicit Composite(std::vector<Tensor> parts) : parts_(std::move(parts)) {}
  virtual ~Composite() = default;
  Composite(const Composite&) = delete;
  Composite& operator=(const Composite&) = delete;

  // As copy_rows of tensor.h, for the whole; the range is checked.
  virtual void copy_rows(int64_t begin, int64_t end, DType to, std::byte* out) const = 0;
  const std::vector<Tensor>& parts() const { return parts_; }

 private:
  std::vector<Tensor> parts_;
};

// Experts as GPT-OSS has them, [experts, in, out], from one or two stacks [experts, out, in]. Of
// two the outputs alternate: gate, up, gate, up. A bias [experts, out] joins in the same way.
// Throws kInvalidArgument when the shapes do not fit.
Tensor gpt_oss_experts(std::string name, std::vector<Tensor> stacks);

// The same from `blocks` [experts, out, in / 32, 16] and `scales` [experts, out, in / 32], both U8:
// OCP's MXFP4, two values a byte, the scale an exponent of two with bias 127.
Tensor gpt_oss_mxfp4_experts(std::string name, const Tensor& blocks, const Tensor& scales);

// Every `stride`-th output of gpt_oss_experts(), from `offset` on: rows of a quantized stack, by
// the stack's own stride and offset. No matrix: it is not quantized.
struct QuantizedOutputs {
  const QuantizedMatrix* matrix = nullptr;
  int64_t stride = 1;
  int64_t offset = 0;

  // Of these outputs [begin, end).
  QuantizedRows read(int64_t begin, int64_t end) const;
};
QuantizedOutputs quantized_outputs(const Tensor& experts, int64_t stride, int64_t offset);

// DeepSeek's kv_b_proj [heads * (nope + v), rank] from k_b [heads, rank, nope] and v_b [heads, v,
// rank].
Tensor deepseek_kv_b(std::string name, const Tensor& k_b, const Tensor& v_b);

}  // namespace ttpu::io
