// DeepSeek's multi-head latent attention (arXiv:2405.04434) in its absorbed form over a paged
// cache: every head attends to one shared latent.
#pragma once

#include "ttpu/kernels/ragged_paged_attention/ragged_paged_attention.h"

namespace ttpu::kernels {

struct MlaOptions {
  double scale = 1;
  std::optional<ContextParts> context = {};
};

// q_latent [tokens, heads, rank]; q_rope [tokens, heads, rope]; latent [tokens, rank]; k_rope
// [tokens, rope]; cache [pages, page_size, cache_elements(rank + rope)], or that as
// row_cache() has it: the latent, then the rotated key, with one scale for both. The output
// is [tokens, heads, rank]. The batch and the cache are as in ragged_paged_attention.
AttentionResult mla_attention(const Target& target, ir::Value q_latent, ir::Value q_rope,
                              ir::Value latent, ir::Value k_rope, ir::Value cache,
                              const RaggedBatch& batch, const MlaOptions& options);

}  // namespace ttpu::kernels
