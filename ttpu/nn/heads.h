// The heads of attention among devices: which of them has which, and the products before and
// behind the attention.
//
// Where the strategy divides tokens there too ("ulysses": S. A. Jacobs et al., "DeepSpeed Ulysses",
// arXiv:2309.14509), a device multiplies its own tokens with the weights of all heads, and sends
// each of the others what that one's heads need.
#pragma once

#include "ttpu/nn/attention.h"

namespace ttpu::nn {

// What a device has of the heads.
struct Heads {
  int64_t units = 0;  // into which all query heads may be divided
  parallel::Division q_division, kv_division;
  int64_t q = 0, kv = 0;
  // The cache's positions are divided among devices with the same KV heads.
  parallel::Division context;
  // Query heads that those devices have apart from each other and attend with together.
  parallel::Division apart;
  // Among which tokens may be divided in the projections: each has those of all heads.
  parallel::Division projected;
};
Heads divide_heads(const parallel::Layout& layout, int64_t heads, int64_t kv_heads);

// [tokens, heads * n] to [tokens, heads, n].
ir::Value split_heads(ir::Value x, int64_t heads);

// [tokens, heads, head_dim]: the device's own heads of all tokens.
struct Projections {
  ir::Value q, k, v;
};
// x: the device's part of the tokens.
Projections project(Context& context, const AttentionSpec& spec, const Heads& heads, ir::Value x);
// Of what the device's heads saw for all tokens, [tokens, heads * head_dim]: the device's part of
// the tokens, [tokens, hidden].
ir::Value project_output(Context& context, const AttentionSpec& spec, const Heads& heads,
                         ir::Value attended);

}  // namespace ttpu::nn
