#include "ttpu/ir/constant.h"

#include <limits>

#include "ttpu/ir/function.h"
#include "ttpu/ir/infer.h"

namespace ttpu::ir {
namespace {

// The largest finite value, or infinity where the format has it.
double largest_float(DType dtype) {
  if (dtype == DType::kF4E2M1FN) return 6;
  return dtype == DType::kF8E4M3FN ? 448.0 : std::numeric_limits<double>::infinity();
}

}  // namespace

std::vector<Shape> infer_constant(const OpContext& op) {
  return {op.attributes.get<Literal>("value").shape()};
}

std::vector<Shape> infer_iota(const OpContext& op) {
  const Shape& shape = op.declared_shape();
  const auto dim = op.attributes.get<int64_t>("iota_dimension");
  check(dim >= 0 && dim < shape.rank(), op, "dimension {} of {}", dim, shape.to_string());
  check(shape.dtype != DType::kPred, op, "is not defined for {}", shape.to_string());
  return {shape};
}

Value constant(Function& function, Literal literal) {
  return function.append(OpKind::kConstant, {}, {{"value", std::move(literal)}}).result();
}

Value scalar(Function& function, DType dtype, double value) {
  return full(function, Shape(dtype, {}), value);
}

Value full(Function& function, Shape shape, double value) {
  return constant(function, Literal::splat(std::move(shape), value));
}

Value constant_vector(Function& function, DType dtype, const std::vector<int64_t>& values) {
  return constant(function,
                  Literal::from_ints(Shape(dtype, {static_cast<int64_t>(values.size())}), values));
}

Value lowest(Function& function, DType dtype) {
  const Shape shape(dtype, {});
  if (is_float(dtype)) return full(function, shape, -largest_float(dtype));
  if (!is_signed_int(dtype)) return full(function, shape, 0);
  const int64_t value = std::numeric_limits<int64_t>::min() >> (64 - bit_width(dtype));
  return constant(function, Literal::splat_int(shape, value));
}

Value highest(Function& function, DType dtype) {
  const Shape shape(dtype, {});
  if (is_float(dtype)) return full(function, shape, largest_float(dtype));
  if (dtype == DType::kPred) return full(function, shape, 1);
  // All bits for ui64: Literal keeps the bits of the signed number.
  if (dtype == DType::kU64) return constant(function, Literal::splat_int(shape, -1));
  const int bits = bit_width(dtype) - (is_signed_int(dtype) ? 1 : 0);
  const int64_t value = std::numeric_limits<int64_t>::max() >> (63 - bits);
  return constant(function, Literal::splat_int(shape, value));
}

Value iota(Function& function, Shape shape, int64_t dim) {
  return function.append(OpKind::kIota, {}, {{"iota_dimension", dim}}, {}, {std::move(shape)})
      .result();
}

}  // namespace ttpu::ir
