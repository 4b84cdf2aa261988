// From finished sums to the output; shared by tiles of many and of few rows.
#pragma once

#include <cmath>

#include "ttpu/kernels/cpu/scratch.h"
#include "ttpu/kernels/cpu/simd.h"
#include "ttpu/kernels/ragged_paged_attention/cpu/isa_attention.h"

namespace ttpu::kernels::cpu {
namespace {

constexpr float kLowest = -1e30f;
constexpr float kLog2e = 1.44269504f;

inline const char* element_at(const void* base, DType dtype, int64_t index) {
  return static_cast<const char*>(base) + index * size_of(dtype);
}

// Where the keys of `head` at a position lie.
inline const char* cache_at(const Attention& c, int64_t sequence, int64_t position, int64_t head) {
  const int32_t page = c.page_indices[sequence * c.pages_per_sequence + position / c.page_size];
  const int64_t row = page * c.page_size + position % c.page_size;
  return element_at(c.cache, c.cache_dtype, row * c.width + head * c.head_stride);
}

// Scores become base-2 exponents by this factor; where they must pass through a soft cap first (or
// the factor is no positive number) they are mapped in place and the factor is 1.
struct ScoreScale {
  float factor = 1;
  bool mapped = false;
};
inline ScoreScale score_scale(const Attention& c) {
  const bool mapped = c.soft_cap > 0 || !(c.scale > 0);
  return {mapped ? 1.f : c.scale * kLog2e, mapped};
}
inline VecF mapped_score(const Attention& c, VecF v) {
  v *= c.scale;
  if (c.soft_cap > 0) {
    // tanh(y) = 1 - 2 / (e^2y + 1)
    VecF y = v * (2.f * kLog2e / c.soft_cap);
    y = y > 80.f ? all(80.f) : y;
    v = (1.f - 2.f / (exp2_of(y) + 1.f)) * c.soft_cap;
  }
  return v * kLog2e;
}

struct RowPlace {
  int64_t token, head;  // head: of the queries
};
inline RowPlace place_of(const Attention& c, const AttentionItem& item, int64_t row) {
  const int64_t groups = groups_of(c);
  const int64_t rows = item.tokens * groups;
  return {item.token + row % rows / groups, (item.head_begin + row / rows) * groups + row % groups};
}

// One row's output. `sums` may be read up to a whole vector.
inline void finish_row(const Attention& c, RowPlace place, float most, float total,
                       const float* sums) {
  float factor = 1;
  if (c.sinks != nullptr) {
    const float sink = c.sinks[place.head] * kLog2e;
    const float high = sink > most ? sink : most;
    factor = std::exp2(most - high);
    total = total * factor + std::exp2(sink - high);
  }
  factor = total > 0 ? factor / total : 0;
  const int64_t at = (place.token * c.q_heads + place.head) * c.value_dim;
  for (int64_t d = 0; d < c.value_dim; d += kLanes) {
    const VecF v = load<VecF>(sums + d) * factor;
    if (c.dtype == DType::kF32) {
      store_some(static_cast<float*>(c.output) + at + d, v, c.value_dim - d);
    } else {
      store_some(static_cast<uint16_t*>(c.output) + at + d, halves_of(v), c.value_dim - d);
    }
  }
}

// To the output, or to the partial state.
inline void leave_row(const Attention& c, const AttentionItem& item, int64_t row, float most,
                      float total, const float* sums) {
  if (item.partial == nullptr) return finish_row(c, place_of(c, item, row), most, total, sums);
  float* state = item.partial + row * state_size(c);
  std::memcpy(state, sums, static_cast<size_t>(c.value_dim) * sizeof(float));
  state[c.value_dim] = most;
  state[c.value_dim + 1] = total;
}

void join_parts(const Attention& c, const AttentionItem& item, const float* states, int64_t parts) {
  const int64_t rows = rows_of(c, item);
  const int64_t size = state_size(c);
  const int64_t dim = c.value_dim;
  auto* sums = thread_scratch_of<float>(1, round_up(dim, kLanes));
  for (int64_t row = 0; row < rows; ++row) {
    float most = kLowest;
    for (int64_t p = 0; p < parts; ++p) {
      const float high = states[(p * rows + row) * size + dim];
      most = high > most ? high : most;
    }
    float total = 0;
    std::memset(sums, 0, static_cast<size_t>(round_up(dim, kLanes)) * sizeof(float));
    for (int64_t p = 0; p < parts; ++p) {
      const float* state = states + (p * rows + row) * size;
      const float factor = exp2_of(all(state[dim] - most))[0];
      total += state[dim + 1] * factor;
      int64_t d = 0;
      for (; d + kLanes <= dim; d += kLanes) {
        store(sums + d, load<VecF>(sums + d) + load<VecF>(state + d) * factor);
      }
      for (; d < dim; ++d) sums[d] += state[d] * factor;
    }
    finish_row(c, place_of(c, item, row), most, total, sums);
  }
}

}  // namespace
}  // namespace ttpu::kernels::cpu
