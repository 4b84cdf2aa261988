// What each instruction set compiles for itself.
#pragma once

#include "ttpu/kernels/ragged_paged_attention/cpu/kernel.h"

namespace ttpu::kernels::cpu {

// Some tokens of a sequence, one key head, some positions of the sequence.
struct AttentionItem {
  int32_t sequence = 0;
  int64_t token = 0;     // the first, in the flat batch
  int64_t tokens = 0;    // how many
  int64_t position = 0;  // of the first
  int64_t kv_head = 0;
  int64_t kv_begin = 0, kv_end = 0;
  // Not null: the rows' unfinished states go here ([rows, state_size] f32: accumulator, maximum,
  // sum) and not to the output. Rows are (token, head of the group).
  float* partial = nullptr;
};

inline constexpr int64_t kKvBlock = 64;  // positions taken at once

inline int64_t state_size(const Attention& call) { return call.value_dim + 2; }

struct AttentionIsa {
  void (*run)(const Attention& call, const AttentionItem& item);
  // Joins the partial states of `parts` items of the same rows, one after another in memory, and
  // writes the output.
  void (*join)(const Attention& call, const AttentionItem& item, const float* states,
               int64_t parts);
};

extern const AttentionIsa kPortableAttention;
#if defined(__x86_64__)
extern const AttentionIsa kAvx2Attention;
extern const AttentionIsa kAvx512Attention;
#endif

}  // namespace ttpu::kernels::cpu
