// Attention of whole sequences of one length, without a cache: what training computes. It knows its
// own gradient, for which scores are computed again in blocks of queries and never all kept
// (FlashAttention-2, arXiv:2307.08691).
#pragma once

#include <optional>

#include "ttpu/ir/value.h"
#include "ttpu/kernels/registry.h"

namespace ttpu::kernels {

// As AttentionOptions has them (ragged_paged_attention.h).
struct SequenceAttentionOptions {
  double scale = 1;
  bool causal = true;
  std::optional<int64_t> sliding_window = {};
  std::optional<double> soft_cap = {};
  std::optional<ir::Value> sinks = {};  // [q_heads]
};

// q [tokens, q_heads, d], k [tokens, kv_heads, d], v [tokens, kv_heads, d_v] of one dtype; the
// tokens are whole sequences of `length`, one after another, and see those of their own sequence
// alone. Query head h reads key head h / (q_heads / kv_heads). Returns [tokens, q_heads, d_v],
// dtype of q. It is a call of a function of the module, the same for the same shapes and options,
// which has a CustomGradient. Sums and softmax are f32. Throws kInvalidArgument for shapes that do
// not fit.
ir::Value sequence_attention(const Target& target, ir::Value q, ir::Value k, ir::Value v,
                             int64_t length, const SequenceAttentionOptions& options);

}  // namespace ttpu::kernels
