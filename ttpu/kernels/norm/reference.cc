#include "ttpu/kernels/norm/reference.h"

#include "ttpu/ir/ir.h"

namespace ttpu::kernels::reference {

ir::Value norm(ir::Value x, const NormWeights& weights, const NormOptions& options) {
  const DType dtype = x.dtype();
  const ir::Value weight = ir::convert(weights.weight, DType::kF32);
  ir::Value wide = ir::convert(x, DType::kF32);
  const auto mean = [&](ir::Value v) {
    return ir::reduce_sum(v, {-1}, true) * (1.0 / static_cast<double>(x.dim(-1)));
  };
  if (options.kind == NormKind::kLayer) wide = wide - mean(wide);
  wide = wide * ir::rsqrt(mean(wide * wide) + options.epsilon);
  switch (options.scale) {
    case NormScale::kRounded:
      return ir::convert(wide, dtype) * ir::convert(weight, dtype);
    case NormScale::kOnePlus:
      return ir::convert(wide * (weight + 1.0), dtype);
    case NormScale::kF32:
      break;
  }
  wide = wide * weight;
  if (weights.bias) wide = wide + ir::convert(*weights.bias, DType::kF32);
  return ir::convert(wide, dtype);
}

}  // namespace ttpu::kernels::reference
