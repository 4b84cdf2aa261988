#include "ttpu/kernels/mla_attention/mla_attention.h"

#include <algorithm>

#include "ttpu/base/error.h"
#include "ttpu/ir/ir.h"
#include "ttpu/kernels/mla_attention/tpu.h"
#include "ttpu/kernels/ragged_paged_attention/dispatch.h"
#include "ttpu/kernels/ragged_paged_attention/reference.h"

namespace ttpu::kernels {

Dims tpu_latent_cache(const Dims& cache, DType dtype) {
  constexpr int64_t kLanes = 128;
  const int64_t rows = std::max<int64_t>(1, 32 / bit_width(dtype));
  if (cache.at(1) % rows != 0) return cache;
  const int64_t padded = (cache.at(2) + kLanes - 1) / kLanes * kLanes;
  return {cache[0], cache[1] / rows, rows, padded};
}

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
              cache.dims() == (for_tpu ? tpu_latent_cache(plain, cache.dtype()) : plain),
          "[mla_attention] q_latent {}, q_rope {}, latent {}, k_rope {} and cache {} do not fit",
          q_latent.shape().to_string(), q_rope.shape().to_string(), latent.shape().to_string(),
          k_rope.shape().to_string(), cache.shape().to_string());
  AttentionOptions attention;
  attention.scale = options.scale;
  attention.context = options.context;
  ir::Value q = ir::concatenate({q_latent, q_rope}, 2);
  ir::Value rows = ir::concatenate({latent, k_rope}, 1);
  CacheLayout layout{1, rank + rope, rank, true};
  if (!for_tpu) return paged_attention(target, q, {rows}, cache, layout, batch, attention);
  if (target.tpu) {
    if (const auto result =
            tpu_latent_attention(*target.tpu, q, rows, rank, cache, batch, options)) {
      return *result;
    }
  }
  // What pads the cache's rows are zeros, to which those of queries and keys add nothing.
  const int64_t more = cache.dim(3) - row;
  const ir::Value zero = ir::scalar(q.function(), q.dtype(), 0);
  q = ir::pad(q, zero, {0, 0, 0}, {0, 0, more});
  rows = ir::pad(rows, zero, {0, 0}, {0, more});
  layout.key_dim += more;
  const ir::Value view = ir::reshape(cache, {cache.dim(0), page_size, cache.dim(3)});
  AttentionResult result =
      reference::paged_attention(q, ir::expand_dims(rows, 1), view, layout, batch, attention);
  result.cache = ir::reshape(result.cache, cache.dims());
  return result;
}

}  // namespace ttpu::kernels
