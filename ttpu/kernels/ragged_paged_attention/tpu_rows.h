// The Mosaic kernel of our own (tools/tpu_kernels/row_attention.py), for what those of
// tpu-inference do not do: see wants_row_cache().
#pragma once

#include <optional>

#include "ttpu/kernels/ragged_paged_attention/reference.h"

namespace ttpu::kernels {

// As reference::paged_attention for a cache of rows, queries and keys turned already; nothing where
// no kernel fits, the reason noted in `kernels`.
std::optional<AttentionResult> tpu_row_attention(TpuKernels& kernels, ir::Value q,
                                                 const NewRows& rows, ir::Value cache,
                                                 const CacheLayout& layout,
                                                 const RaggedBatch& batch,
                                                 const AttentionOptions& options);

}  // namespace ttpu::kernels
