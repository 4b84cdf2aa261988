// The implementation that a program gets, for operators that have checked their operands.
#pragma once

#include "ttpu/kernels/ragged_paged_attention/reference.h"

namespace ttpu::kernels {

// As reference::paged_attention, with rotary where the options have it.
AttentionResult paged_attention(const Target& target, ir::Value q, const NewRows& rows,
                                ir::Value cache, const CacheLayout& layout,
                                const RaggedBatch& batch, const AttentionOptions& options);

}  // namespace ttpu::kernels
