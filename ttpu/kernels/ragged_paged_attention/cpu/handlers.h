// The custom call of attention; the operators write it through attention_call.
#pragma once

#include <cstdint>
#include <span>

#include "ttpu/kernels/cpu/handler.h"

namespace ttpu::kernels {

// "ttpu_attention": operands cache, q [tokens, q_heads, key_dim], keys ([tokens, kv_heads, key_dim]
// or, without values, [tokens, width]), kv_lens, page_indices, cu_q_lens, distribution; where
// has_values values; where `rotary` is not 0 cos and sin; where has_sinks f32 sinks. Results output
// and cache (aliases operand 0). Attributes also kv_heads, head_stride, value_offset, window,
// causal (i64), scale and soft_cap (f32), as in cpu::Attention.
inline constexpr const char* kAttentionTarget = "ttpu_attention";
inline constexpr int64_t kNoRotary = 0, kHalfRotary = 1, kInterleavedRotary = 2;

std::span<const CpuHandler> attention_cpu_handlers();

}  // namespace ttpu::kernels
