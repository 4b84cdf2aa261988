#include "ttpu/kernels/linear/product.h"

#include <numeric>

#include "ttpu/ir/ir.h"
#include "ttpu/kernels/linear/rows.h"
#include "ttpu/kernels/linear/scales.h"

namespace ttpu::kernels::reference {
namespace {

using ir::Value;

// y [.., out] times scales, of its last dimensions.
Value scaled_columns(Value y, Value scales) {
  Dims last;
  for (int64_t i = y.rank() - scales.rank(); i < y.rank(); ++i) last.push_back(i);
  return y * ir::broadcast_in_dim(scales, y.dims(), last);
}

Value scaled_rows(Value y, Value scales) {
  Dims first;
  for (int64_t i = 0; i < scales.rank(); ++i) first.push_back(i);
  return y * ir::broadcast_in_dim(scales, y.dims(), first);
}

// The product as one of batches, the weight's blocks of rows: so the TPU compiler makes the numbers
// where the product reads the values. The factors of the blocks are multiplied with the weight, or
// with x where it has no more rows than a block.
Value block_product(Value x, const WeightOperand& weight, int64_t batching) {
  const DType dtype = compute_dtype(x, weight);
  const int64_t count = batching > 0 ? 1 : x.shape().num_elements() / x.dim(-1);
  const bool scale_x = !weight.zero_points && count <= rows_in_block(weight);
  const Value factors = of_columns(weight.scales, weight);  // [.., blocks, in]
  const int64_t at = factors.rank() - 1;                    // of the rows of x
  Dims dims = factors.dims();
  dims.insert(dims.begin() + at, count);
  Dims axes;
  for (int64_t i = 0; i < at; ++i) axes.push_back(i);
  axes.push_back(at + 1);
  const Value rows = ir::reshape(x, {x.shape().num_elements() / x.dim(-1), x.dim(-1)});
  Value batches = ir::broadcast_in_dim(rows, dims, {batching > 0 ? 0 : at, at + 1});
  if (scale_x) {
    batches = ir::convert(batches, DType::kF32) * ir::broadcast_in_dim(factors, dims, axes);
  }
  const Value values =
      scale_x ? ir::convert(in_row_blocks(weight), dtype) : numbers_in_blocks(weight, dtype);
  const Value y = product(ir::convert(batches, dtype), values, at);  // [.., blocks, rows, block]
  axes.insert(axes.begin(), at);
  Dims result(x.dims().begin(), x.dims().end() - 1);
  const auto own = weight.value.dims().begin();
  result.insert(result.end(), own + batching, own + weight.value.rank() - 1);
  return ir::reshape(ir::transpose(y, axes), result);
}

// The first dimensions of both are batching.
ir::DotDimensionNumbers batched(int64_t batching) {
  ir::DotDimensionNumbers dims;
  dims.lhs_batching.resize(static_cast<size_t>(batching));
  std::iota(dims.lhs_batching.begin(), dims.lhs_batching.end(), 0);
  dims.rhs_batching = dims.lhs_batching;
  return dims;
}

// Groups are a dimension that is summed over beside their columns: of one for both, the TPU
// compiler makes the numbers apart from the product where there is no multiple of eight groups.
Value group_product(Value x, const WeightOperand& weight, int64_t batching) {
  const DType dtype = compute_dtype(x, weight);
  const Value numbers = numbers_in_groups(weight, dtype);
  const int64_t at = numbers.rank() - 3;
  Dims rows(x.dims().begin(), x.dims().end() - 1);
  rows.insert(rows.end(), {numbers.dim(-3), numbers.dim(-2)});
  ir::DotDimensionNumbers dims = batched(batching);
  dims.lhs_contracting = {x.rank() - 1, x.rank()};
  dims.rhs_contracting = {at, at + 1};
  return ir::dot_general(ir::reshape(ir::convert(x, dtype), rows), numbers, dims, DType::kF32,
                         ir::precision_for(dtype));
}

Value rounded_product(const Rows& x, const WeightOperand& weight, int64_t batching) {
  const Value y = ir::convert(product(x.values, weight.value, batching), DType::kF32);
  return scaled_rows(scaled_columns(y, weight.scales), x.scales);
}

}  // namespace

DType compute_dtype(Value x, const WeightOperand& weight) {
  const bool narrow_weight =
      weight.encoding != Encoding::kDense || weight.scales || weight.value.dtype() == DType::kBF16;
  return x.dtype() == DType::kBF16 && narrow_weight ? DType::kBF16 : DType::kF32;
}

Value product(Value x, Value w, int64_t batching, DType floats) {
  ir::DotDimensionNumbers dims = batched(batching);
  dims.lhs_contracting = {x.rank() - 1};
  dims.rhs_contracting = {w.rank() - 1};
  const ir::Precision precision = ir::precision_for(x.dtype());
  return ir::dot_general(x, w, dims, is_float(x.dtype()) ? floats : DType::kS32, precision);
}

Value weight_product(const Target& target, const Rows& given, const WeightOperand& weight,
                     int64_t batching) {
  const Rows rows = rounded_rows(target, given, {weight});
  if (rows.scales) return rounded_product(rows, weight, batching);
  const Value x = rows.values;
  const DType dtype = compute_dtype(x, weight);
  if (rows_in_block(weight) > 1 && target.platform == Platform::kTpu) {
    return block_product(x, weight, batching);
  }
  if (has_group_scales(weight)) return group_product(x, weight, batching);
  if (!has_row_scales(weight)) {
    return product(ir::convert(x, dtype), dense(weight, dtype), batching);
  }
  const Value y = product(ir::convert(x, dtype), ir::convert(weight.value, dtype), batching);
  return scaled_columns(y, weight.scales);
}

}  // namespace ttpu::kernels::reference
