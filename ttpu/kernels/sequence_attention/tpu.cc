#include "ttpu/kernels/sequence_attention/tpu.h"

#include <algorithm>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "ttpu/ir/ir.h"
#include "ttpu/kernels/tpu/lanes.h"

namespace ttpu::kernels {
namespace {

constexpr const char* kForward = "sequence_attention";
constexpr const char* kBackward = "sequence_attention_gradient";

// Why the kernels cannot be asked for; empty when they can.
std::string reason_against(ir::Value q, ir::Value v, int64_t length) {
  if (q.dtype() != DType::kBF16) {
    return fmt::format("queries of {}; the kernel is for bf16", dtype_name(q.dtype()));
  }
  if (length % kTpuLanes != 0) {
    return fmt::format("sequences of {}; the kernel is for multiples of {}", length, kTpuLanes);
  }
  for (const int64_t size : {q.dim(2), v.dim(2)}) {
    if (size % (kTpuLanes / 2) != 0) {
      return fmt::format("heads of {}; the kernel is for multiples of {}", size, kTpuLanes / 2);
    }
  }
  return "";
}

// Pairs of a query and a key that it sees, of one head in one sequence.
double visible_pairs(int64_t length, const SequenceAttentionOptions& options) {
  const int64_t window = options.sliding_window.value_or(length);
  int64_t pairs = 0;
  for (int64_t i = 0; i < length; ++i) {
    const int64_t end = options.causal ? i + 1 : length;
    pairs += end - std::max<int64_t>(0, i - window + 1);
  }
  return static_cast<double>(pairs);
}

// Calls the kernel `op` of q, k, v, what else `operands` have, by products of `flops` for a pair.
ir::Values call(TpuKernels& kernels, const char* op, const ir::Values& operands, int64_t length,
                const SequenceAttentionOptions& options, const std::vector<Shape>& results,
                int64_t flops) {
  const ir::Value q = operands[0], k = operands[1], v = operands[2];
  if (const std::string reason = reason_against(q, v, length); !reason.empty()) {
    kernels.note_reference(op, reason);
    return {};
  }
  const int64_t sequences = q.dim(0) / length;
  const double pairs = visible_pairs(length, options);
  const Json key = {{"kernel", op},
                    {"chip", kernels.chip()},
                    {"sequences", sequences},
                    {"length", length},
                    {"q_heads", q.dim(1)},
                    {"kv_heads", k.dim(1)},
                    {"head_dim", q.dim(2)},
                    {"value_dim", v.dim(2)},
                    {"dtype", dtype_name(q.dtype())},
                    {"scale", options.scale},
                    {"causal", options.causal},
                    {"window", options.sliding_window.value_or(0)},
                    {"soft_cap", options.soft_cap.value_or(0)},
                    {"sinks", options.sinks.has_value()},
                    {"pairs", static_cast<int64_t>(pairs)}};
  std::vector<Shape> shapes;
  for (const ir::Value operand : operands) shapes.push_back(operand.shape());
  ir::TextBody work;
  work.flops = pairs * static_cast<double>(sequences * q.dim(1) * flops);
  const ir::Function* function =
      kernels.function(q.function().module(), key, shapes, results, std::move(work));
  return function == nullptr ? ir::Values{} : ir::call(*function, operands);
}

ir::Values operands_of(ir::Value q, ir::Value k, ir::Value v,
                       const SequenceAttentionOptions& options) {
  ir::Values operands = {q, k, v};
  if (options.sinks) operands.push_back(*options.sinks);
  return operands;
}

}  // namespace

std::optional<SequenceAttentionResult> tpu_sequence_attention(
    TpuKernels& kernels, ir::Value q, ir::Value k, ir::Value v, int64_t length,
    const SequenceAttentionOptions& options) {
  const int64_t tokens = q.dim(0), heads = q.dim(1), size = q.dim(2), value_size = v.dim(2);
  const ir::Values made = call(kernels, kForward, operands_of(q, k, v, options), length, options,
                               {Shape(q.dtype(), {tokens, heads, value_size}),
                                Shape(DType::kF32, {tokens / length, heads, length})},
                               2 * (size + value_size));
  if (made.empty()) return std::nullopt;
  return SequenceAttentionResult{made[0], made[1]};
}

std::optional<ir::Values> tpu_sequence_attention_gradient(TpuKernels& kernels, ir::Value q,
                                                          ir::Value k, ir::Value v, int64_t length,
                                                          const SequenceAttentionOptions& options,
                                                          const SequenceAttentionResult& result,
                                                          ir::Value d_output) {
  ir::Values operands = operands_of(q, k, v, options);
  std::vector<Shape> results;
  for (const ir::Value x : operands) results.push_back(x.shape());
  operands.insert(operands.end(), {result.output, result.logarithm, d_output});
  const ir::Values made = call(kernels, kBackward, operands, length, options, results,
                               2 * (3 * q.dim(2) + 2 * v.dim(2)));
  if (made.empty()) return std::nullopt;
  return made;
}

}  // namespace ttpu::kernels
