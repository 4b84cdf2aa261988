#include "ttpu/kernels/sampling/sampling.h"

#include "ttpu/base/error.h"
#include "ttpu/ir/ir.h"
#include "ttpu/kernels/sampling/cpu/handlers.h"
#include "ttpu/kernels/sampling/reference.h"

namespace ttpu::kernels {
namespace {

constexpr const char* kOp = "sampling";

void require_shape(const char* name, ir::Value value, const Shape& expected) {
  require(value && value.shape() == expected, "[{}] {} is {}, expected {}", kOp, name,
          value ? value.shape().to_string() : "nothing", expected.to_string());
}

void check_logits(ir::Value logits, int64_t top) {
  require(logits && logits.rank() == 2 && logits.dtype() == DType::kF32 && logits.dim(1) > 0,
          "[{}] logits are {}, expected f32 [rows, vocab]", kOp,
          logits ? logits.shape().to_string() : "nothing");
  require(top >= 0 && top <= logits.dim(1), "[{}] the top {} of {} tokens are asked for", kOp, top,
          logits.dim(1));
}

void check_history(const TokenHistory& history, int64_t rows, int64_t vocab) {
  const ir::Value counts = history.counts;
  require(counts && counts.rank() == 2 && counts.dtype() == DType::kU16 && counts.dim(0) > 0 &&
              counts.dim(1) == vocab,
          "[{}] counts are {}, expected ui16 [slots, {}]", kOp,
          counts ? counts.shape().to_string() : "nothing", vocab);
  require_shape("slots", history.slots, Shape(DType::kS32, {rows}));
  require_shape("repetition", history.repetition, Shape(DType::kF32, {rows}));
  require_shape("frequency", history.frequency, Shape(DType::kF32, {rows}));
  require_shape("presence", history.presence, Shape(DType::kF32, {rows}));
}

void check_bias(const LogitBias& bias, int64_t rows) {
  require(bias.tokens && bias.tokens.rank() == 2, "[{}] the bias has tokens {}, expected [rows, k]",
          kOp, bias.tokens ? bias.tokens.shape().to_string() : "nothing");
  const int64_t k = bias.tokens.dim(1);
  require_shape("the tokens of the bias", bias.tokens, Shape(DType::kS32, {rows, k}));
  require_shape("the bias", bias.values, Shape(DType::kF32, {rows, k}));
}

void check(const SamplingInputs& in, const SamplingOptions& options) {
  check_logits(in.logits, options.top);
  const int64_t rows = in.logits.dim(0), vocab = in.logits.dim(1);
  require_shape("temperature", in.temperature, Shape(DType::kF32, {rows}));
  require_shape("top_k", in.top_k, Shape(DType::kS32, {rows}));
  require_shape("top_p", in.top_p, Shape(DType::kF32, {rows}));
  require_shape("min_p", in.min_p, Shape(DType::kF32, {rows}));
  require_shape("seeds", in.seeds, Shape(DType::kU32, {rows, 2}));
  require_shape("position", in.position, Shape(DType::kU32, {rows}));
  if (in.history) check_history(*in.history, rows, vocab);
  if (in.bias) check_bias(*in.bias, rows);
  if (in.allowed) {
    require_shape("allowed", *in.allowed, Shape(DType::kU32, {rows, (vocab + 31) / 32}));
  }
}

// The results of both custom calls for log probabilities.
std::vector<Shape> logprob_shapes(int64_t rows, int64_t top) {
  std::vector<Shape> shapes = {Shape(DType::kF32, {rows})};
  if (top > 0) {
    shapes.push_back(Shape(DType::kS32, {rows, top}));
    shapes.push_back(Shape(DType::kF32, {rows, top}));
  }
  return shapes;
}

SamplingResult call(const SamplingInputs& in, const SamplingOptions& options) {
  const int64_t rows = in.logits.dim(0);
  ir::Values operands = {in.logits, in.temperature, in.top_k,   in.top_p,
                         in.min_p,  in.seeds,       in.position};
  std::vector<Shape> results = {Shape(DType::kS32, {rows})};
  ir::CustomCallOptions custom;
  custom.backend_config = {{"has_history", static_cast<int64_t>(in.history.has_value())},
                           {"has_bias", static_cast<int64_t>(in.bias.has_value())},
                           {"has_allowed", static_cast<int64_t>(in.allowed.has_value())},
                           {"logprobs", static_cast<int64_t>(options.logprobs)}};
  if (in.history) {
    const TokenHistory& h = *in.history;
    results.push_back(h.counts.shape());
    custom.output_operand_aliases = {{1, static_cast<int64_t>(operands.size())}};
    operands.insert(operands.end(), {h.counts, h.slots, h.repetition, h.frequency, h.presence});
  }
  if (in.bias) operands.insert(operands.end(), {in.bias->tokens, in.bias->values});
  if (in.allowed) operands.push_back(*in.allowed);
  if (options.logprobs) {
    const std::vector<Shape> logprobs = logprob_shapes(rows, options.top);
    results.insert(results.end(), logprobs.begin(), logprobs.end());
  }
  const ir::Values out =
      ir::row_major_call(in.logits.function(), kSamplingTarget, operands, results, custom);
  SamplingResult result;
  size_t next = 0;
  result.tokens = out[next++];
  if (in.history) result.counts = out[next++];
  if (options.logprobs) result.logprobs = out[next++];
  if (options.logprobs && options.top > 0) {
    result.top_tokens = out[next];
    result.top_logprobs = out[next + 1];
  }
  return result;
}

}  // namespace

SamplingResult sample(const Target& target, const SamplingInputs& inputs,
                      const SamplingOptions& options) {
  check(inputs, options);
  if (target.cpu_kernels()) return call(inputs, options);
  return reference::sample(inputs, options, target.tpu.get());
}

ir::Value count_tokens(ir::Value counts, ir::Value slots, ir::Value tokens) {
  require(counts.rank() == 2 && counts.dtype() == DType::kU16,
          "[sample] counts are {}, expected ui16 [slots, vocab]", counts.shape().to_string());
  require_shape("slots", slots, Shape(DType::kS32, tokens.dims()));
  require_shape("tokens", tokens, Shape(DType::kS32, slots.dims()));
  return reference::count_tokens(counts, slots, tokens);
}

LogprobsResult token_logprobs(const Target& target, ir::Value logits, ir::Value tokens,
                              int64_t top) {
  check_logits(logits, top);
  require_shape("tokens", tokens, Shape(DType::kS32, {logits.dim(0)}));
  if (!target.cpu_kernels()) return reference::token_logprobs(logits, tokens, top);
  const ir::Values out = ir::row_major_call(logits.function(), kLogprobsTarget, {logits, tokens},
                                            logprob_shapes(logits.dim(0), top));
  LogprobsResult result;
  result.logprobs = out[0];
  if (top > 0) {
    result.top_tokens = out[1];
    result.top_logprobs = out[2];
  }
  return result;
}

}  // namespace ttpu::kernels
