#include "ttpu/kernels/sequence_attention/reference.h"

#include <algorithm>
#include <vector>

#include "ttpu/ir/ir.h"

namespace ttpu::kernels::reference {
namespace {

using ir::ComparisonDirection;
using ir::Value;

// Queries of a block, by the bytes that its scores may take.
constexpr int64_t kMostQueries = 512;
constexpr int64_t kFewestQueries = 256;
constexpr int64_t kScoreBytes = int64_t{128} << 20;

constexpr double kUnseen = -1e30;

// Queries and the keys that they see, as positions of their sequence.
struct Block {
  int64_t begin, end;
  int64_t keys_begin, keys_end;
};

std::vector<Block> blocks_of(int64_t length, int64_t rows,
                             const SequenceAttentionOptions& options) {
  int64_t size = kMostQueries;
  while (size > kFewestQueries && size * rows * length * 4 > kScoreBytes) size /= 2;
  std::vector<Block> blocks;
  for (int64_t begin = 0; begin < length; begin += size) {
    const int64_t end = std::min(begin + size, length);
    const int64_t window = options.sliding_window.value_or(length);
    blocks.push_back(
        {begin, end, std::max<int64_t>(0, begin - window + 1), options.causal ? end : length});
  }
  return blocks;
}

// [tokens, heads, size] as [sequences, kv_heads, length, size], or [sequences, kv_heads, groups,
// length, size] where heads are those of queries.
Value heads_first(Value x, int64_t length, int64_t kv_heads, bool grouped) {
  const int64_t sequences = x.dim(0) / length;
  const int64_t groups = x.dim(1) / kv_heads;
  if (!grouped) {
    return ir::transpose(ir::reshape(x, {sequences, length, kv_heads, x.dim(2)}), {0, 2, 1, 3});
  }
  const Value split = ir::reshape(x, {sequences, length, kv_heads, groups, x.dim(2)});
  return ir::transpose(split, {0, 2, 3, 1, 4});
}

// The way back, as `dtype`.
Value tokens_first(Value x, DType dtype) {
  const Value numbers = ir::convert(x, dtype);
  if (x.rank() == 4) {
    return ir::reshape(ir::transpose(numbers, {0, 2, 1, 3}),
                       {x.dim(0) * x.dim(2), x.dim(1), x.dim(3)});
  }
  return ir::reshape(ir::transpose(numbers, {0, 3, 1, 2, 4}),
                     {x.dim(0) * x.dim(3), x.dim(1) * x.dim(2), x.dim(4)});
}

// Products of heads: the axes of [sequences, kv_heads, groups, queries, keys or size] and of
// [sequences, kv_heads, keys, size] (or as the former) that are summed over.
Value product(Value lhs, Value rhs, Dims lhs_axes, Dims rhs_axes) {
  return ir::dot_general(lhs, rhs, {{0, 1}, {0, 1}, std::move(lhs_axes), std::move(rhs_axes)},
                         DType::kF32, ir::precision_for(lhs.dtype()));
}

// The operands with heads first.
struct Heads {
  Heads(Value q, Value k, Value v, int64_t length)
      : q(heads_first(q, length, k.dim(1), true)),
        k(heads_first(k, length, k.dim(1), false)),
        v(heads_first(v, length, k.dim(1), false)) {}

  int64_t length() const { return k.dim(2); }
  int64_t rows() const { return q.dim(0) * q.dim(1) * q.dim(2); }  // of a position
  Value queries(const Block& block) const { return ir::slice_in_dim(q, 3, block.begin, block.end); }
  Value keys(const Block& block) const {
    return ir::slice_in_dim(k, 2, block.keys_begin, block.keys_end);
  }
  Value values(const Block& block) const {
    return ir::slice_in_dim(v, 2, block.keys_begin, block.keys_end);
  }

  Value q;     // [sequences, kv_heads, groups, length, d]
  Value k, v;  // [sequences, kv_heads, length, d]
};

// [sequences, kv_heads, groups, queries, keys], of what is not seen too.
Value scores_of(const Heads& heads, const Block& block, const SequenceAttentionOptions& options) {
  const Value scores = product(heads.queries(block), heads.keys(block), {4}, {3}) * options.scale;
  if (!options.soft_cap) return scores;
  return ir::tanh(scores / *options.soft_cap) * *options.soft_cap;
}

// `x`, of the scores' shape, with `other` for what is not seen.
Value where_seen(Value x, double other, const Block& block,
                 const SequenceAttentionOptions& options) {
  const bool window = options.sliding_window && block.end - *options.sliding_window > 0;
  if (!options.causal && !window) return x;
  ir::Function& function = x.function();
  const Shape grid(DType::kS32, {x.dim(3), x.dim(4)});
  // How far a key stands behind its query.
  const Value distance = ir::iota(function, grid, 0) - ir::iota(function, grid, 1) +
                         static_cast<double>(block.begin - block.keys_begin);
  const auto bound = [&](int64_t value) {
    return ir::full(function, grid, static_cast<double>(value));
  };
  std::optional<Value> seen;
  if (options.causal) seen = ir::compare(distance, bound(0), ComparisonDirection::kGe);
  if (window) {
    const Value near =
        ir::compare(distance, bound(*options.sliding_window), ComparisonDirection::kLt);
    seen = seen ? ir::and_(*seen, near) : near;
  }
  return ir::select(ir::broadcast_in_dim(*seen, x.dims(), {3, 4}), x,
                    ir::full(function, x.shape(), other));
}

// [1, kv_heads, groups, 1, 1]
Value grouped_sinks(const Heads& heads, Value sinks) {
  return ir::reshape(sinks, {1, heads.q.dim(1), heads.q.dim(2), 1, 1});
}

struct Attended {
  Value output;     // [sequences, kv_heads, groups, queries, d_v] f32
  Value logarithm;  // [sequences, kv_heads, groups, queries]
};

Attended attend(const Heads& heads, const Block& block, const SequenceAttentionOptions& options) {
  const Value scores = where_seen(scores_of(heads, block, options), kUnseen, block, options);
  Value most = ir::reduce_max(scores, {4}, true);
  std::optional<Value> sinks;
  if (options.sinks) {
    sinks = ir::broadcast_to(grouped_sinks(heads, *options.sinks), most.dims());
    most = ir::maximum(most, *sinks);
  }
  const Value weights = ir::exponential(scores - most);
  Value total = ir::reduce_sum(weights, {4}, true);
  if (sinks) total = total + ir::exponential(*sinks - most);
  const Value sum = product(ir::convert(weights, heads.v.dtype()), heads.values(block), {4}, {2});
  return {sum / total, ir::squeeze(most + ir::log(total), 4)};
}

// Adds to the keys of the block in a sum of [sequences, kv_heads, length, size].
void add_to(std::optional<Value>& sum, Value part, const Block& block, int64_t length) {
  const auto zero = [&] { return ir::scalar(part.function(), DType::kF32, 0); };
  if (!sum) {
    sum = ir::pad(part, zero(), {0, 0, block.keys_begin, 0}, {0, 0, length - block.keys_end, 0});
    return;
  }
  const Value before = ir::slice_in_dim(*sum, 2, block.keys_begin, block.keys_end);
  ir::Values starts(4, ir::scalar(part.function(), DType::kS32, 0));
  starts[2] = ir::scalar(part.function(), DType::kS32, static_cast<double>(block.keys_begin));
  sum = ir::dynamic_update_slice(*sum, before + part, starts);
}

}  // namespace

SequenceAttentionResult sequence_attention(Value q, Value k, Value v, int64_t length,
                                           const SequenceAttentionOptions& options) {
  const Heads heads(q, k, v, length);
  ir::Values outputs, logarithms;
  for (const Block& block : blocks_of(length, heads.rows(), options)) {
    const Attended attended = attend(heads, block, options);
    outputs.push_back(ir::convert(attended.output, q.dtype()));
    logarithms.push_back(attended.logarithm);
  }
  return {tokens_first(ir::concatenate(outputs, 3), q.dtype()),
          ir::reshape(ir::concatenate(logarithms, 3), {q.dim(0) / length, q.dim(1), length})};
}

ir::Values sequence_attention_gradient(Value q, Value k, Value v, int64_t length,
                                       const SequenceAttentionOptions& options,
                                       const SequenceAttentionResult& result, Value d_output) {
  Heads heads(q, k, v, length);
  const DType dtype = q.dtype();
  Value d_outputs = heads_first(d_output, length, k.dim(1), true);
  // What the derivative of softmax takes off: the sum of P * dP, which is that of O * dO.
  const Value together =
      ir::convert(d_output, DType::kF32) * ir::convert(result.output, DType::kF32);
  const Value shared = heads_first(ir::reduce_sum(together, {2}, true), length, k.dim(1), true);
  const Dims& column = shared.dims();
  const Value logarithm = ir::reshape(result.logarithm, column);

  ir::Values d_q;
  std::optional<Value> d_k, d_v;
  std::vector<Block> blocks = blocks_of(length, heads.rows(), options);
  for (auto block = blocks.rbegin(); block != blocks.rend(); ++block) {
    const auto rows = [&](Value x) { return ir::slice_in_dim(x, 3, block->begin, block->end); };
    const Value scores = scores_of(heads, *block, options);
    const Value weights = where_seen(ir::exponential(scores - rows(logarithm)), 0, *block, options);
    const Value d_weights = product(rows(d_outputs), heads.values(*block), {4}, {3});
    Value d_scores = weights * (d_weights - rows(shared)) * options.scale;
    if (options.soft_cap) {
      const Value capped = scores / *options.soft_cap;
      d_scores = d_scores * (1.0 - capped * capped);
    }
    d_scores = ir::convert(d_scores, dtype);
    d_q.push_back(ir::convert(product(d_scores, heads.keys(*block), {4}, {2}), dtype));
    add_to(d_k, product(d_scores, heads.queries(*block), {2, 3}, {2, 3}), *block, length);
    add_to(d_v, product(ir::convert(weights, dtype), rows(d_outputs), {2, 3}, {2, 3}), *block,
           length);
    // The next block waits for this one: of all of them at once the scores would be kept.
    const ir::Values after = ir::optimization_barrier({heads.q, d_outputs, *d_k, *d_v, d_q.back()});
    heads.q = after[0];
    d_outputs = after[1];
    d_k = after[2];
    d_v = after[3];
    d_q.back() = after[4];
  }
  std::reverse(d_q.begin(), d_q.end());
  ir::Values gradients = {tokens_first(ir::concatenate(d_q, 3), dtype), tokens_first(*d_k, dtype),
                          tokens_first(*d_v, dtype)};
  if (options.sinks) {
    const Value sinks = ir::broadcast_to(grouped_sinks(heads, *options.sinks), column);
    const Value each = ir::exponential(sinks - logarithm) * shared;
    gradients.push_back(ir::reshape(-ir::reduce_sum(each, {0, 3, 4}), options.sinks->dims()));
  }
  return gradients;
}

}  // namespace ttpu::kernels::reference
