#include "ttpu/kernels/linear/scales.h"

#include <algorithm>
#include <numeric>

#include "ttpu/ir/ir.h"

namespace ttpu::kernels {

using ir::Value;

bool has_row_scales(const WeightOperand& weight) {
  return weight.scales && weight.scales.dims().size() + 1 == weight.dims.size();
}

bool has_group_scales(const WeightOperand& weight) {
  return weight.scales && !has_row_scales(weight) && rows_in_block(weight) == 1;
}

Dims dims_by_groups(Dims dims, int64_t groups) {
  constexpr int64_t kColumns = 64;
  constexpr int64_t kTile = 128;
  const int64_t group = dims.back() / groups;
  const bool apart = dims[dims.size() - 2] % kTile == 0 || (group >= 32 && groups <= 64);
  int64_t together = apart ? 1 : std::max<int64_t>(kColumns / group, 1);
  while (groups % together != 0) --together;
  dims.back() = dims[dims.size() - 2];
  dims[dims.size() - 2] = group * together;
  dims.insert(dims.end() - 2, groups / together);
  return dims;
}

int64_t rows_in_block(const WeightOperand& weight) {
  if (!weight.scales || has_row_scales(weight) || weight.dims.size() < 2) return 1;
  return weight.dims[weight.dims.size() - 2] / weight.scales.dim(-2);
}

Value in_row_blocks(const WeightOperand& weight) {
  Dims dims = weight.scales.dims();
  dims.back() = rows_in_block(weight);
  dims.push_back(weight.value.dim(-1));
  return ir::reshape(weight.value, dims);
}

namespace {

// Factors [.., out, groups] to [.., groups, out].
Value by_groups(Value factors) {
  Dims axes(static_cast<size_t>(factors.rank()));
  std::iota(axes.begin(), axes.end(), 0);
  std::swap(axes.back(), axes[axes.size() - 2]);
  return ir::transpose(ir::convert(factors, DType::kF32), axes);
}

// Factors beside the values of a weight, in which several groups lie as one: each of its rows has
// the factor of its group.
Value of_group_rows(Value factors, const Dims& dims) {
  const size_t rows = dims.size() - 2;
  const int64_t together = factors.dim(-1) / dims[rows - 1];
  Dims apart = dims;
  apart[rows] = together;
  const Value each = ir::reshape(by_groups(factors), apart);
  const Value row = ir::iota(factors.function(), Shape(DType::kS32, dims), static_cast<int>(rows));
  Value all;
  for (int64_t i = 0; i < together; ++i) {
    const Value own = ir::broadcast_to(ir::slice_in_dim(each, each.rank() - 2, i, i + 1), dims);
    const int64_t group = dims[rows] / together;
    const auto first = static_cast<double>(group * i);
    all =
        i == 0 ? own : ir::select(ir::compare(row, first, ir::ComparisonDirection::kLt), all, own);
  }
  return all;
}

}  // namespace

Value numbers_in_groups(const WeightOperand& weight, DType dtype) {
  Value numbers = ir::convert(weight.value, DType::kF32);
  const auto spread = [&](Value factors) { return of_group_rows(factors, weight.value.dims()); };
  if (weight.zero_points) numbers = numbers - spread(weight.zero_points);
  return ir::convert(numbers * spread(weight.scales), dtype);
}

Value of_columns(Value factors, const WeightOperand& weight) {
  Dims dims = factors.dims();
  dims.back() = weight.value.dim(-1);
  Dims grouped = factors.dims();
  grouped.push_back(dims.back() / grouped.back());
  const Value each = ir::expand_dims(ir::convert(factors, DType::kF32), -1);
  return ir::reshape(ir::broadcast_to(each, grouped), dims);
}

Value numbers_in_blocks(const WeightOperand& weight, DType dtype) {
  const Value values = in_row_blocks(weight);
  const auto spread = [&](Value factors) {
    return ir::broadcast_to(ir::expand_dims(of_columns(factors, weight), -2), values.dims());
  };
  Value numbers = ir::convert(values, DType::kF32);
  if (weight.zero_points) numbers = numbers - spread(weight.zero_points);
  return ir::convert(numbers * spread(weight.scales), dtype);
}

Value dense(const WeightOperand& weight, DType dtype) {
  if (weight.encoding != Encoding::kDense) return dequantize(weight.value, weight.encoding, dtype);
  if (!weight.scales) return ir::convert(weight.value, dtype);
  if (has_group_scales(weight)) {
    Dims axes(static_cast<size_t>(weight.value.rank()));
    std::iota(axes.begin(), axes.end(), 0);
    std::rotate(axes.end() - 3, axes.end() - 1, axes.end());
    return ir::reshape(ir::transpose(numbers_in_groups(weight, dtype), axes), weight.dims);
  }
  if (!has_row_scales(weight)) return ir::reshape(numbers_in_blocks(weight, dtype), weight.dims);
  const Value scales = ir::expand_dims(ir::convert(weight.scales, DType::kF32), -1);
  return ir::convert(ir::convert(weight.value, DType::kF32) * scales, dtype);
}

}  // namespace ttpu::kernels
