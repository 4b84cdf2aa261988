#include "ttpu/ir/convert.h"

#include "ttpu/ir/function.h"
#include "ttpu/ir/infer.h"

namespace ttpu::ir {

std::vector<Shape> infer_convert(const OpContext& op) {
  const Shape& result = op.declared_shape();
  check(result.dims == op.shape(0).dims, op, "{} to {} changes the dimensions",
        op.shape(0).to_string(), result.to_string());
  return {result};
}

std::vector<Shape> infer_bitcast_convert(const OpContext& op) {
  const Shape& from = op.shape(0);
  const Shape& to = op.declared_shape();
  check((from.dtype == DType::kPred) == (to.dtype == DType::kPred), op,
        "{} to {}: i1 has no bits to share", from.to_string(), to.to_string());
  const int from_bits = bit_width(from.dtype);
  const int to_bits = bit_width(to.dtype);
  Dims expected = from.dims;
  if (from_bits > to_bits) {
    expected.push_back(from_bits / to_bits);
  } else if (from_bits < to_bits) {
    check(!expected.empty() && expected.back() == to_bits / from_bits, op,
          "{} to {}: the last dimension must be {}", from.to_string(), dtype_name(to.dtype),
          to_bits / from_bits);
    expected.pop_back();
  }
  check(to.dims == expected, op, "{} to {}: the dimensions must be {}", from.to_string(),
        to.to_string(), dims_to_string(expected));
  return {to};
}

std::vector<Shape> infer_reduce_precision(const OpContext& op) {
  check(is_float(op.shape(0).dtype), op, "is not defined for {}; it takes floats",
        op.shape(0).to_string());
  const int exponent = op.attributes.get<I32>("exponent_bits").value;
  const int mantissa = op.attributes.get<I32>("mantissa_bits").value;
  check(exponent >= 1 && mantissa >= 0, op,
        "{} exponent bits and {} mantissa bits; at least 1 and 0 expected", exponent, mantissa);
  return {op.shape(0)};
}

Value convert(Value x, DType dtype) {
  if (x.dtype() == dtype) return x;
  return x.function().append(OpKind::kConvert, {x}, {}, {}, {Shape(dtype, x.dims())}).result();
}

Value bitcast_convert(Value x, DType dtype) {
  Dims dims = x.dims();
  const int from_bits = bit_width(x.dtype());
  const int to_bits = bit_width(dtype);
  if (from_bits > to_bits) dims.push_back(from_bits / to_bits);
  if (from_bits < to_bits && !dims.empty()) dims.pop_back();
  return x.function().append(OpKind::kBitcastConvert, {x}, {}, {}, {Shape(dtype, dims)}).result();
}

Value reduce_precision(Value x, int exponent_bits, int mantissa_bits) {
  return x.function()
      .append(OpKind::kReducePrecision, {x},
              {{"exponent_bits", I32{exponent_bits}}, {"mantissa_bits", I32{mantissa_bits}}})
      .result();
}

}  // namespace ttpu::ir
