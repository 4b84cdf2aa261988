#include "ttpu/kernels/linear/rows.h"

#include "ttpu/base/error.h"
#include "ttpu/ir/ir.h"

namespace ttpu::kernels {

using ir::Value;

Rows::Rows(const ir::Values& parts, DType dtype) : values(parts.at(0)), dtype(dtype) {
  if (parts.size() == 1) return;
  scales = parts[1];
  const Dims rows(values.dims().begin(), values.dims().end() - 1);
  require(parts.size() == 2 && scales.shape() == Shape(DType::kF32, rows),
          "[linear] rows {} have scales {}, expected {}", values.shape().to_string(),
          scales.shape().to_string(), Shape(DType::kF32, rows).to_string());
}

ir::Values Rows::parts() const { return scales ? ir::Values{values, scales} : ir::Values{values}; }

namespace reference {
namespace {

// x as values of `dtype`, i8 or f8E4M3FN.
Rows rounded(Value x, DType dtype) {
  const double largest = dtype == DType::kS8 ? 127 : 448;
  const Value wide = ir::convert(x, DType::kF32);
  const Value most = ir::reduce_max(ir::abs(wide), {-1}, true);
  // Rows of zeros must not be divided by zero.
  const Value scales =
      ir::maximum(most * (1 / largest), ir::full(x.function(), most.shape(), 1e-30));
  const Value limit = ir::full(x.function(), wide.shape(), largest);
  const Value scaled = ir::clamp(-limit, wide / scales, limit);
  const Value values = dtype == DType::kS8 ? ir::round_nearest_even(scaled) : scaled;
  return Rows({ir::convert(values, dtype), ir::squeeze(scales, scales.rank() - 1)}, x.dtype());
}

// By the TPU compiler's estimates: rounding x takes as long as small products with as many columns
// as kUnits matrix units save; up to kFewRows wait for the weight; units of 128 multiply f8 as
// bf16.
constexpr int64_t kUnits = 32;
constexpr int64_t kFewRows = 128;

bool pays(const Target& target, Value x, const std::vector<WeightOperand>& weights,
          int64_t devices) {
  if (target.platform != Platform::kTpu) return true;
  const bool small_products = weights[0].value.dtype() == DType::kS8 || target.matrix_unit > 128;
  if (!small_products) return false;
  int64_t columns = 0;
  for (const WeightOperand& weight : weights) columns += weight.dims[weight.dims.size() - 2];
  const int64_t rows = x.shape().num_elements() / x.dim(-1);
  return rows > kFewRows && columns * devices >= kUnits * target.matrix_unit;
}

}  // namespace

Rows rounded_rows(const Target& target, const Rows& x, const std::vector<WeightOperand>& weights,
                  int64_t devices) {
  require(!weights.empty(), "[linear] rows for no weight");
  const DType dtype = weights[0].value.dtype();
  for (const WeightOperand& weight : weights) {
    if (!weight.quantize_activations || weight.value.dtype() != dtype) return x;
  }
  if (x.scales || !pays(target, x.values, weights, devices)) return x;
  return rounded(x.values, dtype);
}

}  // namespace reference
}  // namespace ttpu::kernels
