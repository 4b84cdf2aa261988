// Attention of whole sequences in plain StableHLO, some queries at a time, each block against the
// keys that it sees.
#pragma once

#include "ttpu/kernels/sequence_attention/sequence_attention.h"

namespace ttpu::kernels {

struct SequenceAttentionResult {
  ir::Value output;  // [tokens, q_heads, d_v]
  // [sequences, q_heads, length] f32: of the sum of the exponentials of scores.
  ir::Value logarithm;
};

namespace reference {

SequenceAttentionResult sequence_attention(ir::Value q, ir::Value k, ir::Value v, int64_t length,
                                           const SequenceAttentionOptions& options);

// Of q, k, v and, where the options have them, the sinks (f32).
ir::Values sequence_attention_gradient(ir::Value q, ir::Value k, ir::Value v, int64_t length,
                                       const SequenceAttentionOptions& options,
                                       const SequenceAttentionResult& result, ir::Value d_output);

}  // namespace reference
}  // namespace ttpu::kernels
