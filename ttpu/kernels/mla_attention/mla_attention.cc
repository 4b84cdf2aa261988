#include "ttpu/kernels/mla_attention/mla_attention.h"

#include "ttpu/base/error.h"
#include "ttpu/ir/ir.h"
#include "ttpu/kernels/mla_attention/tpu.h"
#include "ttpu/kernels/ragged_paged_attention/dispatch.h"
#include "ttpu/kernels/ragged_paged_attention/reference.h"

namespace ttpu::kernels {

AttentionResult mla_attention(const Target& target, ir::Value q_latent, ir::Value q_rope,
                              ir::Value latent, ir::Value k_rope, ir::Value cache,
                              const RaggedBatch& batch, const MlaOptions& options) {
  require(q_latent.rank() == 3 && q_rope.rank() == 3 && latent.rank() == 2 && k_rope.rank() == 2 &&
              (cache.rank() == 3 || cache.rank() == 4),
          "[mla_attention] q_latent {}, q_rope {}, latent {}, k_rope {}, cache {}: expected 3, 3, "
          "2, 2 and 3 or 4 dimensions",
          q_latent.shape().to_string(), q_rope.shape().to_string(), latent.shape().to_string(),
          k_rope.shape().to_string(), cache.shape().to_string());
  require(q_rope.dtype() == q_latent.dtype() && latent.dtype() == q_latent.dtype() &&
              k_rope.dtype() == q_latent.dtype(),
          "[mla_attention] q_latent is {}, the others differ in dtype",
          q_latent.shape().to_string());
  check_batch("mla_attention", batch, q_latent, cache);
  const int64_t tokens = q_latent.dim(0);
  const int64_t rank = q_latent.dim(2);
  const int64_t rope = q_rope.dim(2);
  const int64_t row = cache_elements(cache.dtype(), rank + rope);
  const bool for_tpu = cache.rank() == 4;
  const int64_t page_size = for_tpu ? cache.dim(1) * cache.dim(2) : cache.dim(1);
  const Dims plain = {cache.dim(0), page_size, row};
  require(q_rope.dims() == Dims({tokens, q_latent.dim(1), rope}) &&
              latent.dims() == Dims({tokens, rank}) && k_rope.dims() == Dims({tokens, rope}) &&
              cache.dims() == (for_tpu ? row_cache(plain, cache.dtype()) : plain),
          "[mla_attention] q_latent {}, q_rope {}, latent {}, k_rope {} and cache {} do not fit",
          q_latent.shape().to_string(), q_rope.shape().to_string(), latent.shape().to_string(),
          k_rope.shape().to_string(), cache.shape().to_string());
  AttentionOptions attention;
  attention.scale = options.scale;
  attention.context = options.context;
  Target others = target;
  if (target.tpu && for_tpu && !options.context && cache.dtype() == DType::kBF16) {
    const ir::Value q = ir::concatenate({q_latent, q_rope}, 2);
    const ir::Value rows = ir::concatenate({latent, k_rope}, 1);
    if (const auto result =
            tpu_latent_attention(*target.tpu, q, rows, rank, cache, batch, options)) {
      return *result;
    }
    others.tpu = nullptr;
  }
  // What pads the cache's rows are zeros, to which those of queries and keys add nothing.
  const int64_t more = for_tpu ? cache.dim(3) - row : 0;
  const auto joined = [&](ir::Values parts) {
    Dims dims = parts[0].dims();
    dims.back() = more;
    if (more > 0) parts.push_back(ir::full(q_latent.function(), Shape(q_latent.dtype(), dims), 0));
    return ir::concatenate(parts, -1);
  };
  const CacheLayout layout{1, rank + rope + more, rank, true, for_tpu};
  return paged_attention(others, joined({q_latent, q_rope}), {joined({latent, k_rope})}, cache,
                         layout, batch, attention);
}

}  // namespace ttpu::kernels
