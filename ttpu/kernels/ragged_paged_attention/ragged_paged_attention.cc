#include "ttpu/kernels/ragged_paged_attention/ragged_paged_attention.h"

#include "ttpu/base/error.h"
#include "ttpu/ir/ir.h"
#include "ttpu/kernels/ragged_paged_attention/dispatch.h"

namespace ttpu::kernels {
namespace {

constexpr const char* kOp = "ragged_paged_attention";

Dims plain_cache(ir::Value k, ir::Value cache) {
  return {cache.dim(0), cache.dim(1), 2 * k.dim(1), cache_elements(cache.dtype(), k.dim(2))};
}

bool is_paired(ir::Value k, ir::Value cache) {
  return cache.dims() != plain_cache(k, cache) &&
         cache.dims() == paired_cache(plain_cache(k, cache));
}

void check(ir::Value q, ir::Value k, ir::Value v, ir::Value cache, const RaggedBatch& batch,
           const AttentionOptions& options) {
  require(q.rank() == 3 && k.rank() == 3 && cache.rank() == 4,
          "[{}] q is {}, k {}, cache {}; expected 3, 3 and 4 dimensions", kOp,
          q.shape().to_string(), k.shape().to_string(), cache.shape().to_string());
  check_batch(kOp, batch, q, cache);
  const int64_t heads = q.dim(1);
  const int64_t kv_heads = k.dim(1);
  require(kv_heads > 0 && heads % kv_heads == 0,
          "[{}] {} query heads are no multiple of {} key heads", kOp, heads, kv_heads);
  require(k.dims() == Dims({q.dim(0), kv_heads, q.dim(2)}) && k.shape() == v.shape() &&
              k.dtype() == q.dtype(),
          "[{}] k is {} and v {}; q is {}", kOp, k.shape().to_string(), v.shape().to_string(),
          q.shape().to_string());
  const int64_t head = cache_elements(cache.dtype(), q.dim(2));
  require(cache.dims() == plain_cache(k, cache) || is_paired(k, cache) ||
              is_row_cache(cache, kv_heads, q.dim(2)),
          "[{}] cache is {}, expected [pages, page_size, {}, {}]", kOp, cache.shape().to_string(),
          2 * kv_heads, head);
  require(!options.sliding_window || *options.sliding_window > 0,
          "[{}] the sliding window is {}, expected 1 or more", kOp,
          options.sliding_window.value_or(0));
  require(!options.soft_cap || *options.soft_cap > 0,
          "[{}] the soft cap is {}, expected more than 0", kOp, options.soft_cap.value_or(0));
  require(!options.sinks || options.sinks->dims() == Dims({heads}),
          "[{}] sinks do not have one number for each of {} heads", kOp, heads);
  if (options.rotary) check_rotary(q, options.rotary->cos, options.rotary->sin);
}

}  // namespace

AttentionResult ragged_paged_attention(const Target& target, ir::Value q, ir::Value k, ir::Value v,
                                       ir::Value cache, const RaggedBatch& batch,
                                       const AttentionOptions& options) {
  check(q, k, v, cache, batch, options);
  if (is_paired(k, cache)) {
    const ir::Value plain = ir::reshape(cache, plain_cache(k, cache));
    const AttentionResult made = ragged_paged_attention(target, q, k, v, plain, batch, options);
    return {made.output, ir::reshape(made.cache, cache.dims())};
  }
  const CacheLayout layout{k.dim(1), k.dim(2), v.dim(2), false,
                           is_row_cache(cache, k.dim(1), k.dim(2))};
  return paged_attention(target, q, {k, v}, cache, layout, batch, options);
}

}  // namespace ttpu::kernels
