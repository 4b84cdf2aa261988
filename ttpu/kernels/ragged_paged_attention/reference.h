// Attention over a paged cache in plain StableHLO; shared by the attention operators.
#pragma once

#include "ttpu/kernels/ragged_paged_attention/ragged_paged_attention.h"
#include "ttpu/kernels/tpu/lanes.h"

namespace ttpu::kernels {

// How one position of the cache (a row of some width) holds keys and values, in numbers.
struct CacheLayout {
  int64_t kv_heads = 1;
  int64_t key_dim = 0;
  int64_t value_dim = 0;
  bool shared = false;  // values are the first value_dim numbers of the keys (MLA), one head
  bool rows = false;    // the cache is as row_cache() has it
};

// Positions of a page that are in the cache, which may be a part of the page's.
int64_t slots_of_page(ir::Value cache, const CacheLayout& layout);

// Whether a cache of several heads is as row_cache() has it.
bool is_row_cache(ir::Value cache, int64_t kv_heads, int64_t head_dim);

// What is written at the tokens' positions.
struct NewRows {
  ir::Value keys;                        // [tokens, kv_heads, key_dim]; MLA: [tokens, width]
  std::optional<ir::Value> values = {};  // [tokens, kv_heads, value_dim]; none: keys are all
};

// Throws kInvalidArgument unless the batch fits the tokens; `op` begins the message.
void check_batch(const char* op, const RaggedBatch& batch, ir::Value q, ir::Value cache);

namespace reference {

// q [tokens, q_heads, key_dim]; rows [tokens, heads, key_dim]: what is written at the tokens'
// positions, a key's head before its value's. Queries and keys of a cache of rows with room behind
// them are padded to it.
AttentionResult paged_attention(ir::Value q, ir::Value rows, ir::Value cache,
                                const CacheLayout& layout, const RaggedBatch& batch,
                                const AttentionOptions& options);

}  // namespace reference
}  // namespace ttpu::kernels
