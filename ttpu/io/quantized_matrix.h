// Matrices in the form that low-precision products take: read from a checkpoint that is quantized,
// or made of numbers when they are loaded.
#pragma once

#include <cstdint>
#include <vector>

#include "ttpu/base/quantization.h"
#include "ttpu/io/composite.h"

namespace ttpu::io {

// Some rows of a matrix. A value is a byte: a small integer, or the bits of an fp8 or fp4 number.
struct QuantizedRows {
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t groups = 0;  // of a row
  std::vector<int8_t> values;
  std::vector<float> scales;       // [rows, groups]
  std::vector<float> zero_points;  // the same; empty: none

  // The numbers that they stand for, [rows, columns].
  std::vector<float> numbers(DType dtype) const;
  // Rows of the same form behind these.
  void append(const QuantizedRows& more);
};

// Rounds rows of numbers [rows, columns] to the nearest values. Scales of whole rows bring the
// largest number of a row to the largest value; those of groups leave the least squared error.
// `quantization.group` must divide the columns. Zero points are not made.
QuantizedRows quantize_rows(const float* numbers, int64_t rows, int64_t columns,
                            const Quantization& quantization);

// The form of ggml's blocks with values and factors apart, for devices that have no kernel for
// blocks: the same numbers but for the rounding of f32.
Quantization groups_of(Encoding encoding);
// Rows [begin, end) of a matrix in blocks, in that form. Throws as copy_encoded_rows.
QuantizedRows rows_of_blocks(const Tensor& tensor, int64_t begin, int64_t end);

// A weight that a checkpoint holds quantized, [out, in]; also readable as numbers.
class QuantizedMatrix : public Composite {
 public:
  QuantizedMatrix(std::vector<Tensor> parts, int64_t columns, const Quantization& quantization)
      : Composite(std::move(parts)), columns_(columns), quantization_(quantization) {}
  const Quantization& quantization() const { return quantization_; }
  int64_t columns() const { return columns_; }
  virtual QuantizedRows read(int64_t begin, int64_t end) const = 0;
  void copy_rows(int64_t begin, int64_t end, DType to, std::byte* out) const final;

 private:
  int64_t columns_;
  Quantization quantization_;
};

// Null for a weight that is not quantized in this way.
const QuantizedMatrix* quantized_of(const Tensor& tensor);

}  // namespace ttpu::io
