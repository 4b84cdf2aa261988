// Attention of a flat batch of tokens over a paged cache, with the interface of the TPU kernels
// known as ragged paged attention v3 (tpu-inference): prefill, chunked prefill, decode and mixtures
// are all this one call.
#pragma once

#include <functional>
#include <optional>

#include "ttpu/ir/value.h"
#include "ttpu/kernels/registry.h"
#include "ttpu/kernels/rotary/rotary.h"

namespace ttpu::kernels {

// All i32. Sequences from distribution[2] on, and tokens from cu_q_lens[distribution[2]] on, are
// padding.
struct RaggedBatch {
  ir::Value kv_lens;       // [sequences]: length with the new tokens
  ir::Value page_indices;  // [sequences * pages_per_sequence]: which page holds the k-th part
  ir::Value cu_q_lens;     // [sequences + 1]: the tokens of sequence s are cu[s] to cu[s + 1]
  ir::Value distribution;  // [3]: ends of the decode-only, prefill-only and mixed sequences
};

// Tables as kernels::rotary takes them.
struct Rotary {
  ir::Value cos, sin;  // [tokens, rot / 2] f32
  RotaryStyle style = RotaryStyle::kHalf;
};

// The positions of every sequence are divided among `parts` devices: of each page, device `index`
// (an i32 scalar) has the slots from index * page_size on, page_size being what it has of a page.
// The others' results are brought in by `sum` and `maximum` over the devices.
struct ContextParts {
  int64_t parts = 1;
  ir::Value index;
  std::function<ir::Value(ir::Value)> sum, maximum;
};

struct AttentionOptions {
  double scale = 1;
  std::optional<int64_t> sliding_window = {};  // position j is seen by i iff i - window < j <= i
  std::optional<double> soft_cap = {};         // cap * tanh(score / cap), as Gemma 2
  std::optional<ir::Value> sinks = {};         // [q_heads]: a logit without a value, as GPT-OSS
  bool causal = true;                          // false: every position of the sequence is seen
  std::optional<Rotary> rotary = {};           // turns q and k first
  std::optional<ContextParts> context = {};    // on CPU by the reference alone
};

// The elements that a cache of this type takes for a key or a value of `size` numbers (the last
// dimension of the cache): as many, but for int8 (kS8), where the four bytes of the f32 scale
// follow: number = element * scale, the scale being that of the head at that position. A cache of
// kF8E4M3FN has no scale; larger numbers become 448. Throws kInvalidArgument for other types than
// those and bf16 and f32.
int64_t cache_elements(DType cache_dtype, int64_t size);

// A cache [pages, page_size, ...] as TPU's kernel of rows has it: [pages, page_size / r, r, row].
// All that a position has is one row, padded to whole lanes of 128, and the r rows that share a
// word of 32 bits stand beside each other. Unchanged where r does not divide the page, or several
// heads do not fill whole lanes. The scales of several heads in int8 stand behind the page's rows
// instead of behind the heads, in words of f32: that of a head at slot i in word i of the head's
// own lanes, or i % w of a further row of words, where one takes w = min(head_dim, 128) slots.
Dims row_cache(const Dims& cache, DType dtype);

// A cache [pages, page_size, 2 * kv_heads, 64] as [pages, page_size, kv_heads, 128], each key
// beside its value. A TPU stores an array so that it is padded least: with 64 numbers in lanes of
// 128 it would have the pages along the lanes, and copy the whole cache before and after each
// kernel. Unchanged for heads of other sizes.
Dims paired_cache(const Dims& cache);

// Whether TPU has a device's cache [pages, page_size, ...] so, rather than as tpu-inference's
// kernels want it: for pages that are divided, int8, sinks with heads that are not of 64, and
// heads that do not fill words.
bool wants_row_cache(const Dims& cache, DType dtype, bool divided, bool sinks);

struct AttentionResult {
  ir::Value output;  // [tokens, q_heads, head_dim of the values], dtype of q; 0 for padding
  ir::Value cache;   // updated
};

// q [tokens, q_heads, head_dim]; k, v [tokens, kv_heads, head_dim]; cache [pages, page_size,
// 2 * kv_heads, cache_elements(head_dim)], or that as row_cache() or paired_cache() has it, key of
// head h at 2h and value at 2h + 1; its type does not depend on that of q.
// Token i of a sequence stands at position kv_len - q_len + i; its key and value are written there
// first. Donate the cache: it is then updated in place. Throws kInvalidArgument for shapes that do
// not fit.
AttentionResult ragged_paged_attention(const Target& target, ir::Value q, ir::Value k, ir::Value v,
                                       ir::Value cache, const RaggedBatch& batch,
                                       const AttentionOptions& options);

}  // namespace ttpu::kernels
