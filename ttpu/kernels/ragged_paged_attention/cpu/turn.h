// Rotary position embedding of one token's heads, as kernels::rotary computes it.
#pragma once

#include "ttpu/kernels/cpu/simd.h"
#include "ttpu/kernels/ragged_paged_attention/cpu/isa_attention.h"

namespace ttpu::kernels::cpu {
namespace {

inline VecF read_vector(const float* from) { return load<VecF>(from); }
inline VecF read_vector(const uint16_t* from) {
  const VecU bits = __builtin_convertvector(load<VecH>(from), VecU) << 16;
  return load<VecF>(&bits);
}
inline void write_vector(float* to, VecF v) { store(to, v); }
inline void write_vector(uint16_t* to, VecF v) { store(to, halves_of(v)); }
inline float read_one(float x) { return x; }
inline float read_one(uint16_t x) { return f32_from_bf16(x); }
inline void write_one(float* to, float x) { *to = x; }
inline void write_one(uint16_t* to, float x) { *to = bf16_from_f32(x); }

template <typename T>
void turn_head(const Attention& c, const float* cos, const float* sin, const T* from, T* to) {
  const int64_t half = c.rotary_half;
  int64_t i = 0;
  if (!c.interleaved) {
    for (; i + kLanes <= half; i += kLanes) {
      const VecF a = read_vector(from + i), b = read_vector(from + half + i);
      const VecF cosines = load<VecF>(cos + i), sines = load<VecF>(sin + i);
      write_vector(to + i, a * cosines - b * sines);
      write_vector(to + half + i, b * cosines + a * sines);
    }
  }
  for (; i < half; ++i) {
    const int64_t first = c.interleaved ? 2 * i : i;
    const int64_t second = c.interleaved ? 2 * i + 1 : half + i;
    const float a = read_one(from[first]), b = read_one(from[second]);
    write_one(to + first, a * cos[i] - b * sin[i]);
    write_one(to + second, b * cos[i] + a * sin[i]);
  }
  std::memcpy(to + 2 * half, from + 2 * half,
              static_cast<size_t>(c.key_dim - 2 * half) * sizeof(T));
}

// `heads` heads of a token.
void turn_heads(const Attention& c, int64_t token, const void* from, int64_t heads, void* to) {
  const float* cos = c.cos + token * c.rotary_half;
  const float* sin = c.sin + token * c.rotary_half;
  for (int64_t at = 0; at < heads * c.key_dim; at += c.key_dim) {
    if (c.dtype == DType::kF32) {
      turn_head(c, cos, sin, static_cast<const float*>(from) + at, static_cast<float*>(to) + at);
    } else {
      turn_head(c, cos, sin, static_cast<const uint16_t*>(from) + at,
                static_cast<uint16_t*>(to) + at);
    }
  }
}

}  // namespace
}  // namespace ttpu::kernels::cpu
