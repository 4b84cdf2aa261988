#include "ttpu/ir/dot.h"

#include "ttpu/ir/function.h"
#include "ttpu/ir/infer.h"

namespace ttpu::ir {
namespace {

Dims joined(const Dims& first, const Dims& second) {
  Dims all = first;
  all.insert(all.end(), second.begin(), second.end());
  return all;
}

void check_pairs(const OpContext& op, const Dims& lhs, const Dims& rhs, const char* what) {
  check(lhs.size() == rhs.size(), op, "{} dimensions {} of lhs and {} of rhs: not as many", what,
        dims_to_string(lhs), dims_to_string(rhs));
  for (size_t i = 0; i < lhs.size(); ++i) {
    const int64_t l = op.shape(0).dims[static_cast<size_t>(lhs[i])];
    const int64_t r = op.shape(1).dims[static_cast<size_t>(rhs[i])];
    check(l == r, op, "{} dimension {} of {} and {} of {} differ: {} and {}", what, lhs[i],
          op.shape(0).to_string(), rhs[i], op.shape(1).to_string(), l, r);
  }
}

}  // namespace

std::vector<Shape> infer_dot_general(const OpContext& op) {
  const Shape& lhs = op.shape(0);
  const Shape& rhs = op.shape(1);
  const auto& dims = op.attributes.get<DotDimensionNumbers>("dot_dimension_numbers");
  const Dims lhs_used = joined(dims.lhs_batching, dims.lhs_contracting);
  const Dims rhs_used = joined(dims.rhs_batching, dims.rhs_contracting);
  check_dims(op, lhs_used, lhs.rank(), "batching and contracting dimensions of lhs");
  check_dims(op, rhs_used, rhs.rank(), "batching and contracting dimensions of rhs");
  check_pairs(op, dims.lhs_batching, dims.rhs_batching, "batching");
  check_pairs(op, dims.lhs_contracting, dims.rhs_contracting, "contracting");
  check(is_float(lhs.dtype) == is_float(rhs.dtype), op, "element types {} and {} do not mix",
        lhs.to_string(), rhs.to_string());
  Dims result;
  for (const int64_t dim : dims.lhs_batching) result.push_back(lhs.dims[static_cast<size_t>(dim)]);
  result = joined(joined(result, remove_dims(lhs.dims, lhs_used)), remove_dims(rhs.dims, rhs_used));
  const Shape& declared = op.declared_shape();
  check(declared.dims.empty() || declared.dims == result, op, "result {} declared, {} inferred",
        dims_to_string(declared.dims), dims_to_string(result));
  check(is_float(declared.dtype) == is_float(lhs.dtype), op, "result type {} of operands {} and {}",
        dtype_name(declared.dtype), lhs.to_string(), rhs.to_string());
  return {Shape(declared.dtype, result)};
}

Value dot_general(Value lhs, Value rhs, DotDimensionNumbers dims, std::optional<DType> dtype,
                  Precision precision) {
  if (!dtype) {
    require(lhs.dtype() == rhs.dtype(),
            "[dot_general] element types differ: {} and {}; give the result type",
            lhs.shape().to_string(), rhs.shape().to_string());
  }
  Attributes attributes{{"dot_dimension_numbers", std::move(dims)}};
  if (precision != Precision::kDefault) {
    attributes.set("precision_config", std::vector<Precision>{precision, precision});
  }
  return lhs.function()
      .append(OpKind::kDotGeneral, {lhs, rhs}, std::move(attributes), {},
              {Shape(dtype.value_or(lhs.dtype()), {})})
      .result();
}

Precision precision_for(DType dtype) {
  return dtype == DType::kF32 ? Precision::kHighest : Precision::kDefault;
}

Value matmul(Value lhs, Value rhs, std::optional<DType> dtype) {
  require(lhs.rank() >= 2 && lhs.rank() == rhs.rank(),
          "[matmul] {} and {}: as many dimensions expected, at least 2", lhs.shape().to_string(),
          rhs.shape().to_string());
  DotDimensionNumbers dims;
  for (int64_t i = 0; i + 2 < lhs.rank(); ++i) {
    dims.lhs_batching.push_back(i);
    dims.rhs_batching.push_back(i);
  }
  dims.lhs_contracting = {lhs.rank() - 1};
  dims.rhs_contracting = {rhs.rank() - 2};
  return dot_general(lhs, rhs, std::move(dims), dtype);
}

}  // namespace ttpu::ir
