// A ranked tensor type: element type and dimensions.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "ttpu/base/dtype.h"

namespace ttpu {

using Dims = std::vector<int64_t>;

struct Shape {
  DType dtype = DType::kF32;
  Dims dims;

  Shape() = default;
  Shape(DType dtype, Dims dims) : dtype(dtype), dims(std::move(dims)) {}

  int rank() const { return static_cast<int>(dims.size()); }
  // Negative axes count from the end. Throws kOutOfRange.
  int64_t dim(int axis) const;
  int64_t num_elements() const;
  // Bytes of the dense row-major array; 4-bit elements are packed two to a byte, rounded up.
  int64_t byte_size() const;
  // "tensor<2x3xbf16>", the StableHLO spelling.
  std::string to_string() const;

  bool operator==(const Shape&) const = default;
};

// "[2, 3]"
std::string dims_to_string(const Dims& dims);

}  // namespace ttpu
