// Which part of a step's sequences lies among some of its tokens.
#include <algorithm>

#include "ttpu/ir/ir.h"
#include "ttpu/nn/pipeline.h"

namespace ttpu::nn {
namespace {

using ir::ComparisonDirection;
using ir::Value;

// A scalar at each of `size` places.
Value repeat(Value scalar, int64_t size) { return ir::broadcast_in_dim(scalar, {size}, {}); }

Value count(Value yes) { return ir::reduce_sum(ir::convert(yes, DType::kS32), {0}); }

Value between(Value x, int64_t least, int64_t most) {
  return ir::clamp(ir::scalar_like(x, static_cast<double>(least)), x,
                   ir::scalar_like(x, static_cast<double>(most)));
}

Value numbers_from(Value first, int64_t size, int64_t most) {
  const Value counted = ir::iota(first.function(), Shape(DType::kS32, {size}), 0);
  return between(counted + repeat(first, size), 0, most);
}

}  // namespace

StepInputs microbatch(const StepInputs& step, Value begin, int64_t size) {
  const kernels::RaggedBatch& all = step.batch;
  if (size == step.tokens.dim(0)) return step;
  const int64_t sequences = all.kv_lens.dim(0);
  const int64_t held = std::min(sequences, size);
  const Value end = begin + static_cast<double>(size);
  const Value starts = ir::slice(all.cu_q_lens, {0}, {sequences});
  const Value ends = ir::slice(all.cu_q_lens, {1}, {sequences + 1});
  // Sequences that end before it, and those that begin before it ends.
  const Value first = count(ir::compare(ends, repeat(begin, sequences), ComparisonDirection::kLe));
  const Value last = count(ir::compare(starts, repeat(end, sequences), ComparisonDirection::kLt));
  const Value own = numbers_from(first, held, sequences - 1);

  StepInputs part;
  part.tokens = ir::dynamic_slice(step.tokens, {begin}, {size});
  part.positions = ir::dynamic_slice(step.positions, {begin}, {size});
  const Value bounds = ir::take(all.cu_q_lens, numbers_from(first, held + 1, sequences), 0);
  part.batch.cu_q_lens = between(bounds - repeat(begin, held + 1), 0, size);
  // What a sequence has behind the end is not there yet.
  const Value behind = ir::take(ends, own, 0) - repeat(end, held);
  const Value none = ir::full_like(behind, 0);
  part.batch.kv_lens = ir::take(all.kv_lens, own, 0) - ir::maximum(behind, none);
  const Value until = ir::minimum(all.distribution, repeat(last, 3));
  part.batch.distribution = ir::maximum(until - repeat(first, 3), ir::full_like(until, 0));
  const auto of_own = [&](Value pages) {
    const int64_t each = pages.dim(0) / sequences;
    return ir::reshape(ir::take(ir::reshape(pages, {sequences, each}), own, 0), {held * each});
  };
  part.batch.page_indices = of_own(all.page_indices);
  for (const auto& [window, pages] : step.window_pages) {
    part.window_pages.emplace_back(window, of_own(pages));
  }
  return part;
}

}  // namespace ttpu::nn
