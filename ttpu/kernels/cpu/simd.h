// Vectors in the compiler's vector types, for the kernels that each instruction set compiles for
// itself: whoever includes this file gets code of its own (internal linkage).
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "ttpu/base/dtype.h"

namespace ttpu::kernels::cpu {
namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float VecF __attribute__((vector_size(kLanes * sizeof(float))));
typedef int32_t VecI __attribute__((vector_size(kLanes * sizeof(float))));
typedef uint32_t VecU __attribute__((vector_size(kLanes * sizeof(float))));
typedef uint16_t VecH __attribute__((vector_size(kLanes * sizeof(uint16_t))));

template <typename V>
inline V load(const void* from) {
  V value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
template <typename V>
inline void store(void* to, V value) {
  std::memcpy(to, &value, sizeof value);
}
// The first `count` lanes, or all when there are more.
template <typename V, typename T>
inline void store_some(T* to, V value, int64_t count) {
  if (count >= kLanes) return store(to, value);
  for (int64_t i = 0; i < count; ++i) to[i] = value[i];
}
inline VecF all(float x) { return x - VecF{}; }
inline VecI all(int32_t x) { return x - VecI{}; }
inline VecU all(uint32_t x) { return x - VecU{}; }
inline VecI lane_numbers() {
  VecI lanes;
  for (int i = 0; i < kLanes; ++i) lanes[i] = i;
  return lanes;
}
// b where one is no number. Written out, since the compiler makes a comparison and a choice of it.
inline VecF larger(VecF a, VecF b) {
#if defined(__AVX512F__)
  return reinterpret_cast<VecF>(
      _mm512_max_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b)));
#elif defined(__AVX2__)
  return reinterpret_cast<VecF>(
      _mm256_max_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b)));
#else
  return a > b ? a : b;
#endif
}
inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Every second lane of a, then of b; beginning with the first lane or with the second.
inline VecF even_lanes(VecF a, VecF b) {
#if defined(__AVX512F__)
  return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
#elif defined(__AVX2__)
  return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14);
#else
  return __builtin_shufflevector(a, b, 0, 2, 4, 6);
#endif
}
inline VecF odd_lanes(VecF a, VecF b) {
#if defined(__AVX512F__)
  return __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
#elif defined(__AVX2__)
  return __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15);
#else
  return __builtin_shufflevector(a, b, 1, 3, 5, 7);
#endif
}
// Sums of neighbours: those of a, then those of b.
inline VecF paired(VecF a, VecF b) { return even_lanes(a, b) + odd_lanes(a, b); }
// The sums of the lanes of `v`[0 .. kLanes), in order; overwrites v.
inline VecF sums_of(VecF* v) {
#pragma GCC unroll 8
  for (int half = kLanes / 2; half > 0; half /= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < half; ++i) v[i] = paired(v[2 * i], v[2 * i + 1]);
  }
  return v[0];
}
inline float sum_of(VecF v) {
#pragma GCC unroll 8
  for (int half = kLanes / 2; half > 0; half /= 2) v = paired(v, v);
  return v[0];
}
inline float largest_of(VecF v) {
  float most = v[0];
#pragma GCC unroll 16
  for (int i = 1; i < kLanes; ++i) most = v[i] > most ? v[i] : most;
  return most;
}

// 2^x for x up to 88 with a relative error of 8e-8; kRough: 8e-5, enough before rounding to bf16.
// Below -125 what 2^-125 gives.
template <bool kRough = false>
inline VecF exp2_of(VecF x) {
  x = larger(x, all(-125.f));
  const VecF magic = all(12582912.f);  // 1.5 * 2^23: adding it rounds to an integer
  const VecF t = x + magic;
  const VecF f = x - (t - magic);
  VecF p;
  if constexpr (kRough) {
    p = all(5.517166715e-2f);
    p = p * f + 2.426111348e-1f;
    p = p * f + 6.932609869e-1f;
    p = p * f + 9.999280728e-1f;
  } else {
    p = all(1.327647178e-3f);
    p = p * f + 9.675541535e-3f;
    p = p * f + 5.550713276e-2f;
    p = p * f + 2.402211972e-1f;
    p = p * f + 6.931469671e-1f;
    p = p * f + 1.000000072f;
  }
  const VecI bits = load<VecI>(&p) + (load<VecI>(&t) << 23);
  return load<VecF>(&bits);
}

// `count` elements as f32, the rest up to `padded` 0.
inline void expand(const void* from, DType dtype, int64_t count, int64_t padded, float* to) {
  int64_t i = 0;
  if (dtype == DType::kF32) {
    std::memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
    i = count;
  } else {
    const auto* half = static_cast<const uint16_t*>(from);
    for (; i + kLanes <= count; i += kLanes) {
      store(to + i, __builtin_convertvector(load<VecH>(half + i), VecU) << 16);
    }
    for (; i < count; ++i) {
      const uint32_t wide = static_cast<uint32_t>(half[i]) << 16;
      std::memcpy(to + i, &wide, sizeof wide);
    }
  }
  for (; i < padded; ++i) to[i] = 0;
}

// To bf16, to nearest even; NaN stays NaN.
inline VecH halves_of(VecF v) {
  const VecU bits = load<VecU>(&v);
  const VecU even = bits + 0x7fffu + ((bits >> 16) & 1u);
  const VecU quiet = bits | 0x400000u;
  const VecU kept = (bits & 0x7fffffffu) > 0x7f800000u ? quiet : even;
  return __builtin_convertvector(kept >> 16, VecH);
}

// The natural logarithm of normal positive numbers, to about 1e-7 (after Cephes' logf).
inline VecF log_of(VecF x) {
  const VecI bits = load<VecI>(&x);
  // m in [sqrt(1/2), sqrt(2)), x = m * 2^e
  const VecI e = (bits - 0x3f3504f3) >> 23;
  const VecI mantissa = bits - (e << 23);
  const VecF f = load<VecF>(&mantissa) - 1.f;
  VecF p = all(7.0376836292e-2f);
  p = p * f - 1.1514610310e-1f;
  p = p * f + 1.1676998740e-1f;
  p = p * f - 1.2420140846e-1f;
  p = p * f + 1.4249322787e-1f;
  p = p * f - 1.6668057665e-1f;
  p = p * f + 2.0000714765e-1f;
  p = p * f - 2.4999993993e-1f;
  p = p * f + 3.3333331174e-1f;
  const VecF n = __builtin_convertvector(e, VecF);
  const VecF square = f * f;
  return (f - 0.5f * square) + (f * square * p + n * -2.12194440e-4f) + n * 0.693359375f;
}

}  // namespace
}  // namespace ttpu::kernels::cpu
