// Attention over a paged cache on CPU, as a plain function over memory: online softmax over blocks
// of positions (FlashAttention, arXiv:2205.14135), all query heads of a key head together.
#pragma once

#include <cstdint>
#include <optional>

#include "ttpu/base/dtype.h"
#include "ttpu/kernels/cpu/isa.h"
#include "ttpu/kernels/cpu/parallel.h"

namespace ttpu::kernels::cpu {

inline int64_t size_of(DType dtype) {
  return dtype == DType::kF32 ? 4 : dtype == DType::kBF16 ? 2 : 1;
}
// Types of the cache alone: they are decoded where they are read.
inline bool is_encoded(DType dtype) { return dtype == DType::kS8 || dtype == DType::kF8E4M3FN; }

// Everything is dense and row-major; bf16 or f32, the cache also int8 or f8E4M3FN. A cache row (one
// position) is `width` elements; the key of head h begins at h * head_stride, its value
// value_offset behind it; behind an int8 key or value lie the four bytes of its f32 scale.
struct Attention {
  DType dtype = DType::kF32;  // of q, keys, values and output
  DType cache_dtype = DType::kF32;
  const void* q = nullptr;  // [tokens, q_heads, key_dim]
  // Written at the tokens' positions first: [tokens, kv_heads, key_dim] and value_dim, or without
  // values whole rows, each key before its value, not encoded.
  const void* keys = nullptr;
  const void* values = nullptr;
  void* cache = nullptr;   // [pages, page_size, width]
  void* output = nullptr;  // [tokens, q_heads, value_dim]
  const int32_t* kv_lens = nullptr;
  const int32_t* page_indices = nullptr;  // [sequences, pages_per_sequence]
  const int32_t* cu_q_lens = nullptr;
  const int32_t* distribution = nullptr;
  const float* sinks = nullptr;  // [q_heads] or null
  int64_t tokens = 0, q_heads = 0, kv_heads = 0, key_dim = 0, value_dim = 0;
  int64_t width = 0, head_stride = 0, value_offset = 0;
  int64_t pages = 0, page_size = 0, sequences = 0, pages_per_sequence = 0;
  // Not null: [tokens, rotary_half]; q and keys are turned first.
  const float* cos = nullptr;
  const float* sin = nullptr;
  int64_t rotary_half = 0;
  bool interleaved = false;
  float scale = 1;
  float soft_cap = 0;  // 0: none
  int64_t window = 0;  // 0: none
  bool causal = true;
};

// Throws kInvalidArgument when lengths or pages point outside; nothing is written then.
void attention(const Attention& call, TaskPool* pool, Isa isa = best_isa());

}  // namespace ttpu::kernels::cpu
