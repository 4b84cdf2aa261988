#include "ttpu/kernels/norm/norm.h"

#include "ttpu/base/error.h"
#include "ttpu/ir/ir.h"
#include "ttpu/kernels/norm/cpu/handlers.h"
#include "ttpu/kernels/norm/reference.h"

namespace ttpu::kernels {
namespace {

void check(ir::Value x, const NormWeights& weights, const NormOptions& options) {
  require(x.rank() >= 1 && is_float(x.dtype()) && x.dim(-1) > 0,
          "[norm] x is {}, expected floats [.., dim]", x.shape().to_string());
  const auto fits = [&](ir::Value v) {
    return v && is_float(v.dtype()) && v.dims() == Dims({x.dim(-1)});
  };
  require(fits(weights.weight) && (!weights.bias || fits(*weights.bias)),
          "[norm] x is {}, expected a weight (and bias) of {} floats", x.shape().to_string(),
          x.dim(-1));
  require(!weights.bias || options.scale == NormScale::kF32,
          "[norm] a bias is added in f32: NormScale::kF32 was expected");
}

bool kernel_takes(ir::Value value) {
  return value.dtype() == DType::kBF16 || value.dtype() == DType::kF32;
}
bool kernel_takes(ir::Value x, const NormWeights& weights) {
  return kernel_takes(x) && kernel_takes(weights.weight) &&
         (!weights.bias || weights.bias->dtype() == weights.weight.dtype());
}

AddNormResult call(ir::Value x, std::optional<ir::Value> delta, const NormWeights& weights,
                   const NormOptions& options) {
  ir::Values operands = {x, weights.weight};
  if (weights.bias) operands.push_back(*weights.bias);
  if (delta) operands.push_back(*delta);
  ir::CustomCallOptions custom;
  custom.backend_config = {
      {"has_bias", static_cast<int64_t>(weights.bias.has_value())},
      {"layer", static_cast<int64_t>(options.kind == NormKind::kLayer)},
      {"round_first", static_cast<int64_t>(options.scale == NormScale::kRounded)},
      {"weight_offset", options.scale == NormScale::kOnePlus ? 1.f : 0.f},
      {"epsilon", static_cast<float>(options.epsilon)}};
  std::vector<Shape> results = {x.shape()};
  if (delta) results.push_back(x.shape());
  const ir::Values out = ir::row_major_call(x.function(), kNormTarget, operands, results, custom);
  return {delta ? out[1] : x, out[0]};
}

}  // namespace

ir::Value norm(const Target& target, ir::Value x, const NormWeights& weights,
               const NormOptions& options) {
  check(x, weights, options);
  if (target.cpu_kernels() && kernel_takes(x, weights)) {
    return call(x, std::nullopt, weights, options).normed;
  }
  return reference::norm(x, weights, options);
}

AddNormResult add_norm(const Target& target, ir::Value x, ir::Value delta,
                       const NormWeights& weights, const NormOptions& options) {
  check(x, weights, options);
  require(delta.shape() == x.shape(), "[norm] {} is added to {}", delta.shape().to_string(),
          x.shape().to_string());
  if (target.cpu_kernels() && kernel_takes(x, weights)) return call(x, delta, weights, options);
  const ir::Value sum = x + delta;
  return {sum, reference::norm(sum, weights, options)};
}

}  // namespace ttpu::kernels
