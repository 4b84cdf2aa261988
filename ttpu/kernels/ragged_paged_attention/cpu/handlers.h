// The custom call of attention; the operators write it through attention_call.
#pragma once

#include <span>

#include "ttpu/kernels/cpu/handler.h"

namespace ttpu::kernels {

// "ttpu_attention": operands cache, q [tokens, q_heads, key_dim], rows [tokens, width], kv_lens,
// page_indices, cu_q_lens, distribution, then f32 sinks if any; results output and cache (aliases
// operand 0). Attributes: kv_heads, head_stride, value_offset, window, causal (i64), scale and
// soft_cap (f32), as in cpu::Attention.
inline constexpr const char* kAttentionTarget = "ttpu_attention";

std::span<const CpuHandler> attention_cpu_handlers();

}  // namespace ttpu::kernels
