// The Mosaic kernel of tpu-inference for latent attention, in the operator's place.
#pragma once

#include <optional>

#include "ttpu/kernels/mla_attention/mla_attention.h"

namespace ttpu::kernels {

// q [tokens, heads, rank + rope]; rows [tokens, rank + rope]; the cache of bf16, as row_cache() has
// it. Nothing where no kernel fits, the reason noted in `kernels`.
std::optional<AttentionResult> tpu_latent_attention(TpuKernels& kernels, ir::Value q,
                                                    ir::Value rows, int64_t rank, ir::Value cache,
                                                    const RaggedBatch& batch,
                                                    const MlaOptions& options);

}  // namespace ttpu::kernels
