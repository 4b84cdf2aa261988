// What each instruction set compiles for itself.
#pragma once

#include "ttpu/kernels/ragged_paged_attention/cpu/kernel.h"

namespace ttpu::kernels::cpu {

// Some tokens of a sequence, some key heads, some positions of the sequence. Its rows are (key
// head, token, query head of the key head's group).
struct AttentionItem {
  int32_t sequence = 0;
  int64_t token = 0;     // the first, in the flat batch
  int64_t tokens = 0;    // how many
  int64_t position = 0;  // of the first
  int64_t head_begin = 0, head_end = 0;
  int64_t kv_begin = 0, kv_end = 0;
  // Not null: the rows' unfinished states go here ([rows, state_size] f32: accumulator, maximum
  // of the base-2 exponents, sum) and not to the output.
  float* partial = nullptr;
};

inline constexpr int64_t kKvBlock = 64;  // positions taken at once
inline constexpr int64_t kFewRows = 8;   // so few rows of a head read the cache where it lies

inline int64_t groups_of(const Attention& call) { return call.q_heads / call.kv_heads; }
inline int64_t state_size(const Attention& call) { return call.value_dim + 2; }
inline int64_t rows_of(const Attention& call, const AttentionItem& item) {
  return (item.head_end - item.head_begin) * item.tokens * groups_of(call);
}

struct AttentionIsa {
  int64_t group_rows;  // rows that are worked on together; tiles hold a few such groups
  void (*run)(const Attention& call, const AttentionItem& item);
  // Joins the partial states of `parts` items of the same rows, one after another in memory, and
  // writes the output.
  void (*join)(const Attention& call, const AttentionItem& item, const float* states,
               int64_t parts);
  // Rotary position embedding of `heads` heads of a token.
  void (*turn)(const Attention& call, int64_t token, const void* from, int64_t heads, void* to);
};

extern const AttentionIsa kPortableAttention;
#if defined(__x86_64__)
extern const AttentionIsa kAvx2Attention;
extern const AttentionIsa kAvx512Attention;
#endif

}  // namespace ttpu::kernels::cpu
