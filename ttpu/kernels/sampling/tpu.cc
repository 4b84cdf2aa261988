#include "ttpu/kernels/sampling/tpu.h"

#include "ttpu/ir/ir.h"

namespace ttpu::kernels {
namespace {

constexpr int64_t kRows = 8;  // that the kernel takes at once

// With rows behind them up to a whole number of blocks.
ir::Value in_blocks(ir::Value x, double fill) {
  Dims none(static_cast<size_t>(x.rank()), 0), more = none;
  more[0] = (kRows - x.dim(0) % kRows) % kRows;
  return more[0] == 0 ? x : ir::pad(x, ir::scalar_like(x, fill), none, more);
}

}  // namespace

std::optional<KeptTokens> tpu_token_filter(TpuKernels& kernels, const SamplingInputs& inputs,
                                           ir::Value scaled) {
  // Rows of no filter take the kernel no time.
  const ir::Values operands = {in_blocks(scaled, 0), in_blocks(inputs.top_k, 0),
                               in_blocks(inputs.top_p, 1), in_blocks(inputs.min_p, 0)};
  std::vector<Shape> arguments;
  for (const ir::Value operand : operands) arguments.push_back(operand.shape());
  // The row is read once; what is compared and added up meanwhile are no products.
  const Json key = {{"kernel", "token_filter"},
                    {"chip", kernels.chip()},
                    {"rows", operands[0].dim(0)},
                    {"vocab", scaled.dim(1)},
                    {"flops", 0},
                    {"bytes", 4 * operands[0].shape().num_elements()}};
  const Shape of_rows(DType::kS32, {operands[0].dim(0)});
  const ir::Function* function =
      kernels.function(scaled.function().module(), key, arguments, {of_rows, of_rows}, {});
  if (function == nullptr) return std::nullopt;
  const ir::Values made = ir::call(*function, operands, scaled.function());
  const auto own = [&](ir::Value x) { return ir::slice(x, {0}, {scaled.dim(0)}); };
  return KeptTokens{own(made[0]), own(made[1])};
}

}  // namespace ttpu::kernels
