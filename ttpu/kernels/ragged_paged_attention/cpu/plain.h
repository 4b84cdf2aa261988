// Attention with everything computed in f32.
#pragma once

#include "ttpu/kernels/ragged_paged_attention/cpu/few.h"
#include "ttpu/kernels/ragged_paged_attention/cpu/tile.h"
#include "ttpu/kernels/ragged_paged_attention/cpu/turn.h"

namespace ttpu::kernels::cpu {
namespace {

void run_plain(const Attention& c, const AttentionItem& item) {
  if (item.tokens * groups_of(c) <= kFewRows) return run_few<PlainReader>(c, item);
  run_tile<PlainPacking>(c, item);
}

constexpr AttentionIsa kPlainAttention = {kGroupRows, run_plain, join_parts, turn_heads};

}  // namespace
}  // namespace ttpu::kernels::cpu
