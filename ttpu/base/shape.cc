#include "ttpu/base/shape.h"

#include <functional>
#include <numeric>

#include <fmt/ranges.h>

#include "ttpu/base/error.h"

namespace ttpu {

int64_t Shape::dim(int axis) const {
  const int index = axis < 0 ? axis + rank() : axis;
  if (index < 0 || index >= rank()) {
    fail(Code::kOutOfRange, "[shape] axis {} of {}, which has {} dimensions", axis, to_string(),
         rank());
  }
  return dims[static_cast<size_t>(index)];
}

int64_t Shape::num_elements() const {
  return std::accumulate(dims.begin(), dims.end(), int64_t{1}, std::multiplies<>());
}

int64_t Shape::byte_size() const { return (num_elements() * bit_width(dtype) + 7) / 8; }

std::string Shape::to_string() const {
  std::string text = "tensor<";
  for (const int64_t dim : dims) text += fmt::format("{}x", dim);
  text += dtype_name(dtype);
  return text + ">";
}

std::string dims_to_string(const Dims& dims) { return fmt::format("[{}]", fmt::join(dims, ", ")); }

}  // namespace ttpu
