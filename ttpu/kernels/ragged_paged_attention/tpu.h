// The Mosaic kernel of tpu-inference, ragged paged attention v3, in the operator's place.
#pragma once

#include <optional>

#include "ttpu/kernels/ragged_paged_attention/reference.h"

namespace ttpu::kernels {

// As reference::paged_attention, queries and keys turned already; nothing where no kernel fits, the
// reason noted in `kernels`.
std::optional<AttentionResult> tpu_attention(TpuKernels& kernels, ir::Value q, const NewRows& rows,
                                             ir::Value cache, const CacheLayout& layout,
                                             const RaggedBatch& batch,
                                             const AttentionOptions& options);

}  // namespace ttpu::kernels
