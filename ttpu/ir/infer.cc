#include "ttpu/ir/infer.h"

#include <algorithm>

#include <fmt/ranges.h>

namespace ttpu::ir {

const Shape& OpContext::declared_shape() const {
  check(declared.size() == 1, *this, "{} result shapes given, one expected", declared.size());
  return declared.front();
}

std::vector<Shape> shapes_of(const Values& values) {
  std::vector<Shape> shapes;
  shapes.reserve(values.size());
  for (const Value value : values) shapes.push_back(value.shape());
  return shapes;
}

std::string shapes_to_string(const std::vector<Shape>& shapes) {
  std::vector<std::string> texts;
  for (const Shape& shape : shapes) texts.push_back(shape.to_string());
  return fmt::format("({})", fmt::join(texts, ", "));
}

std::string shapes_to_string(const Values& values) { return shapes_to_string(shapes_of(values)); }

bool contains(const Dims& dims, int64_t dim) {
  return std::find(dims.begin(), dims.end(), dim) != dims.end();
}

void check_dims(const OpContext& op, const Dims& dims, int64_t rank, const char* what,
                bool sorted) {
  for (size_t i = 0; i < dims.size(); ++i) {
    check(dims[i] >= 0 && dims[i] < rank, op, "{} {} has an entry outside [0, {})", what,
          dims_to_string(dims), rank);
    check(std::count(dims.begin(), dims.end(), dims[i]) == 1, op, "{} {} names {} twice", what,
          dims_to_string(dims), dims[i]);
    check(!sorted || i == 0 || dims[i - 1] < dims[i], op, "{} {} must rise", what,
          dims_to_string(dims));
  }
}

Dims remove_dims(const Dims& shape, const Dims& dims) {
  Dims kept;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (!contains(dims, static_cast<int64_t>(i))) kept.push_back(shape[i]);
  }
  return kept;
}

void check_region(const OpContext& op, size_t index, const std::vector<Shape>& arguments,
                  const std::vector<Shape>& yields) {
  const Region& region = *op.regions.at(index);
  const std::vector<Shape> given = shapes_of(region.arguments);
  check(given == arguments, op, "region {} takes {}, expected {}", index, shapes_to_string(given),
        shapes_to_string(arguments));
  const std::vector<Shape> yielded = shapes_of(region.yielded());
  check(yielded == yields, op, "the body yields {}, expected {}", shapes_to_string(yielded),
        shapes_to_string(yields));
}

int64_t normalize_axis(const char* op, int64_t axis, int64_t rank) {
  const int64_t index = axis < 0 ? axis + rank : axis;
  require(index >= 0 && index < rank, "[{}] axis {} of a value with {} dimensions", op, axis, rank);
  return index;
}

Dims normalize_axes(const char* op, const Dims& axes, int64_t rank) {
  Dims result;
  for (const int64_t axis : axes) result.push_back(normalize_axis(op, axis, rank));
  std::sort(result.begin(), result.end());
  return result;
}

int64_t window_output_size(const OpContext& op, int64_t input, const WindowDim& window) {
  check(window.size > 0 && window.stride > 0 && window.base_dilation > 0 &&
            window.window_dilation > 0,
        op, "window sizes, strides and dilations must be positive");
  const int64_t dilated_input = input == 0 ? 0 : (input - 1) * window.base_dilation + 1;
  const int64_t padded = window.low + dilated_input + window.high;
  const int64_t dilated_window = (window.size - 1) * window.window_dilation + 1;
  check(padded >= 0, op, "padding ({}, {}) crops more than the {} elements there are", window.low,
        window.high, dilated_input);
  if (padded == 0 || dilated_window > padded) return 0;
  return (padded - dilated_window) / window.stride + 1;
}

}  // namespace ttpu::ir
