// Heads of a cache of 8 bits: int8 with the f32 scale of the head behind its numbers, or f8E4M3FN
// without one. A block of positions is decoded to the queries' type, and then goes the way of a
// cache of that type.
#pragma once

#include "ttpu/kernels/ragged_paged_attention/cpu/finish.h"

namespace ttpu::kernels::cpu {
namespace {

typedef int8_t VecB __attribute__((vector_size(kLanes)));
typedef uint8_t VecUB __attribute__((vector_size(kLanes)));

struct Int8 {
  using Vector = VecB;
  static VecF numbers(VecB v) {
    return __builtin_convertvector(__builtin_convertvector(v, VecI), VecF);
  }
};

struct Fp8 {
  using Vector = VecUB;
  // Sign, 4 bits of exponent with bias 7, 3 of mantissa; no infinities. Made without f32's
  // subnormal numbers, which the plugin's threads flush to 0.
  static VecF numbers(VecUB v) {
    const VecU bits = __builtin_convertvector(v, VecU);
    const VecU magnitude = bits & 0x7fu;
    const VecU small = (magnitude << 20) + (121u << 23);  // 2^-6 more than a subnormal
    const VecU normal = (magnitude << 20) + (120u << 23);
    const VecF low = load<VecF>(&small) - 0.015625f;
    const VecF high = load<VecF>(&normal);
    VecF value = magnitude < 8u ? low : high;
    value = magnitude == 0x7fu ? all(__builtin_nanf("")) : value;
    const VecU sign = (bits & 0x80u) << 24;
    const VecU made = load<VecU>(&value) | sign;
    return load<VecF>(&made);
  }
};

template <typename Format>
void decode_head_as(const char* from, float scale, int64_t count, DType dtype, char* to) {
  const auto put = [&](int64_t i, VecF v, int64_t left) {
    v *= scale;
    if (dtype == DType::kF32) {
      store_some(reinterpret_cast<float*>(to) + i, v, left);
    } else {
      store_some(reinterpret_cast<uint16_t*>(to) + i, halves_of(v), left);
    }
  };
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    put(i, Format::numbers(load<typename Format::Vector>(from + i)), kLanes);
  }
  if (i < count) {
    typename Format::Vector rest{};
    std::memcpy(&rest, from + i, static_cast<size_t>(count - i));
    put(i, Format::numbers(rest), count - i);
  }
}

// `count` numbers at `from`, a key's or a value's, whose scale (of int8) lies at `scale_at`.
inline void decode_head(const Attention& c, const char* from, const char* scale_at, int64_t count,
                        char* to) {
  if (c.cache_dtype == DType::kS8) {
    decode_head_as<Int8>(from, load<float>(scale_at), count, c.dtype, to);
  } else {
    decode_head_as<Fp8>(from, 1.f, count, c.dtype, to);
  }
}

// Keys and values of a head, which begins at `key` in the cache.
inline void decode_pair(const Attention& c, const char* key, char* key_to, char* value_to) {
  const char* value = key + c.value_offset;
  // Values that are the front of the keys share their scale.
  const char* value_scale = c.value_offset == 0 ? key + c.key_dim : value + c.value_dim;
  decode_head(c, key, key + c.key_dim, c.key_dim, key_to);
  decode_head(c, value, value_scale, c.value_dim, value_to);
}

// The call as those see it who read decoded blocks.
inline Attention decoded(const Attention& c) {
  Attention plain = c;
  if (is_encoded(c.cache_dtype)) plain.cache_dtype = c.dtype;
  return plain;
}

}  // namespace
}  // namespace ttpu::kernels::cpu
