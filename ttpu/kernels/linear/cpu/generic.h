// The inner kernels in f32, written with the compiler's vector types: each instruction set includes
// this file and gets code of its own (internal linkage, no library templates).
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "ttpu/kernels/linear/cpu/blocks.h"
#include "ttpu/kernels/linear/cpu/isa_kernels.h"

namespace ttpu::kernels::cpu {
namespace {

#if defined(__AVX512F__)
inline constexpr int kLanes = 16, kRowBlock = 12;
#elif defined(__AVX2__)
inline constexpr int kLanes = 8, kRowBlock = 6;
#else
inline constexpr int kLanes = 4, kRowBlock = 4;
#endif
inline constexpr int kPanel = 2 * kLanes;  // columns
inline constexpr int64_t kChunk = 1024;    // elements of a weight's row expanded at once

typedef float VecF __attribute__((vector_size(kLanes * sizeof(float))));

inline VecF load_vec(const float* from) {
  VecF value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
typedef int32_t VecI __attribute__((vector_size(kLanes * sizeof(int32_t))));
inline void store_vec(float* to, VecF value) { std::memcpy(to, &value, sizeof value); }
inline float sum_vec(VecF value) {
  float sum = 0;
  for (int i = 0; i < kLanes; ++i) sum += value[i];
  return sum;
}
inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

inline void expand_bf16(const uint16_t* __restrict from, int64_t count, float* __restrict to) {
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t bits = static_cast<uint32_t>(from[i]) << 16;
    std::memcpy(to + i, &bits, sizeof bits);
  }
}

inline void expand_f16(const uint16_t* from, int64_t count, float* to) {
  int64_t i = 0;
#if defined(__F16C__)
  for (; i + 8 <= count; i += 8) {
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
    _mm256_storeu_ps(to + i, _mm256_cvtph_ps(half));
  }
#endif
  for (; i < count; ++i) to[i] = f32_of_f16(from[i]);
}

inline int64_t bytes_of_row(const Weight& weight) {
  if (weight.encoding == Encoding::kDense) {
    const int64_t bits = weight.dtype == DType::kF32 ? 32 : weight.dtype == DType::kS8 ? 8 : 16;
    return weight.in * bits / 8;
  }
  int64_t bytes = 0;
  with_encoding(weight.encoding, [&]<Encoding kEncoding>() {
    bytes = weight.in / Block<kEncoding>::kElements * Block<kEncoding>::kBytes;
  });
  return bytes;
}

// Elements [from, from + count) of a row as f32: in place when the weight is f32, else in `buffer`.
// `from` is a multiple of kChunk, hence of every block.
inline const float* expand(const Weight& weight, int64_t row, int64_t from, int64_t count,
                           float* buffer) {
  const uint8_t* data = static_cast<const uint8_t*>(weight.data) + row * bytes_of_row(weight);
  if (weight.encoding != Encoding::kDense) {
    with_encoding(weight.encoding, [&]<Encoding kEncoding>() {
      using B = Block<kEncoding>;
      expand_blocks<kEncoding>(data + from / B::kElements * B::kBytes, count, buffer);
    });
    return buffer;
  }
  switch (weight.dtype) {
    case DType::kF32:
      return reinterpret_cast<const float*>(data) + from;
    case DType::kBF16:
      expand_bf16(reinterpret_cast<const uint16_t*>(data) + from, count, buffer);
      return buffer;
    case DType::kF16:
      expand_f16(reinterpret_cast<const uint16_t*>(data) + from, count, buffer);
      return buffer;
    default: {
      const float scale = weight.row_scales[row];
      const int8_t* codes = reinterpret_cast<const int8_t*>(data) + from;
      for (int64_t i = 0; i < count; ++i) buffer[i] = scale * static_cast<float>(codes[i]);
      return buffer;
    }
  }
}

inline float dot(const float* a, const float* b, int64_t count) {
  VecF sums[4] = {};
  int64_t i = 0;
  for (; i + 4 * kLanes <= count; i += 4 * kLanes) {
    for (int v = 0; v < 4; ++v)
      sums[v] += load_vec(a + i + v * kLanes) * load_vec(b + i + v * kLanes);
  }
  for (; i + kLanes <= count; i += kLanes) sums[0] += load_vec(a + i) * load_vec(b + i);
  float sum = sum_vec((sums[0] + sums[1]) + (sums[2] + sums[3]));
  for (; i < count; ++i) sum += a[i] * b[i];
  return sum;
}

inline void few_rows_f32(const Weight& weight, const FewRows& x, int64_t first, int64_t count,
                         float* y, int64_t y_stride) {
  alignas(64) float buffer[kChunk];
  for (int64_t j = 0; j < count; ++j) {
    float sums[4] = {};
    for (int64_t k = 0; k < x.in; k += kChunk) {
      const int64_t n = smaller(kChunk, x.in - k);
      const float* w = expand(weight, first + j, k, n, buffer);
      for (int64_t r = 0; r < x.rows; ++r) sums[r] += dot(w, x.f32 + r * x.in + k, n);
    }
    for (int64_t r = 0; r < x.rows; ++r) y[r * y_stride + j] = sums[r];
  }
}

// A panel is [in][kPanel].
inline void pack_f32(const Weight& weight, int64_t first, int64_t count, float* tile) {
  constexpr int64_t kStep = 256;
  alignas(64) float buffer[kPanel][kStep];
  const float* rows[kPanel];
  const int64_t panel_size = weight.in * kPanel;
  for (int64_t j = 0; j < count; j += kPanel, tile += panel_size) {
    const int64_t columns = smaller(kPanel, count - j);
    for (int64_t k = 0; k < weight.in; k += kStep) {
      const int64_t n = smaller(kStep, weight.in - k);
      for (int64_t c = 0; c < columns; ++c)
        rows[c] = expand(weight, first + j + c, k, n, buffer[c]);
      float* to = tile + k * kPanel;
      for (int64_t i = 0; i < n; ++i, to += kPanel) {
        for (int64_t c = 0; c < columns; ++c) to[c] = rows[c][i];
        for (int64_t c = columns; c < kPanel; ++c) to[c] = 0;
      }
    }
  }
}

template <int kRows>
void panel_f32(const float* x, int64_t x_stride, int64_t in, const float* panel, float* y,
               int64_t y_stride) {
  VecF sums[kRows][2] = {};
  for (int64_t k = 0; k < in; ++k, panel += kPanel) {
    const VecF b0 = load_vec(panel), b1 = load_vec(panel + kLanes);
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
      const float a = x[r * x_stride + k];
      sums[r][0] += b0 * a;
      sums[r][1] += b1 * a;
    }
  }
  for (int r = 0; r < kRows; ++r) {
    store_vec(y + r * y_stride, sums[r][0]);
    store_vec(y + r * y_stride + kLanes, sums[r][1]);
  }
}

template <int kRows>
void many_rows_f32(const float* x, int64_t x_stride, int64_t rows, int64_t in, const float* tile,
                   int64_t panels, float* y, int64_t y_stride) {
  if constexpr (kRows > 0) {
    if (rows < kRows) {
      return many_rows_f32<kRows - 1>(x, x_stride, rows, in, tile, panels, y, y_stride);
    }
    for (int64_t p = 0; p < panels; ++p) {
      panel_f32<kRows>(x, x_stride, in, tile + p * in * kPanel, y + p * kPanel, y_stride);
    }
  }
}

// exp for x <= 0, relative error below 3e-7: 2^n * p(f) with |f| <= ln2 / 2, p of degree 6
// (Taylor).
inline VecF exp_of_negative(VecF x) {
  x = x < -87.0f ? VecF{} - 87.0f : x;
  const VecI n = __builtin_convertvector(x * 1.44269504f - 0.5f, VecI);
  const VecF whole = __builtin_convertvector(n, VecF);
  const VecF f = (x - whole * 0.693145752f) - whole * 1.42860677e-6f;
  VecF p = f * (1.0f / 720) + 1.0f / 120;
  p = p * f + 1.0f / 24;
  p = p * f + 1.0f / 6;
  p = p * f + 0.5f;
  p = p * f + 1.0f;
  p = p * f + 1.0f;
  return p * reinterpret_cast<VecF>((n + 127) << 23);
}

// x * sigmoid(2 z), stable on both sides: with z = x / 2 this is silu, with z = sqrt(2/pi) (x +
// 0.044715 x^3) it is gelu_tanh.
inline VecF gated(VecF x, VecF twice_z) {
  const VecF e = exp_of_negative(twice_z < 0 ? twice_z : -twice_z);
  return x * (twice_z < 0 ? e : VecF{} + 1.0f) / (1.0f + e);
}

inline VecF activate(Activation gate, VecF x) {
  switch (gate) {
    case Activation::kNone:
      return x;
    case Activation::kSilu:
      return gated(x, x);
    case Activation::kGeluTanh:
      return gated(x, 1.59576912f * (x + 0.044715f * x * x * x));
    case Activation::kGelu:
      for (int i = 0; i < kLanes; ++i) x[i] = 0.5f * x[i] * (1.0f + ::erff(x[i] * 0.707106781f));
      return x;
  }
  return x;
}

inline VecF load_bias(const void* bias, DType dtype, int64_t at, int64_t count) {
  float values[kLanes] = {};
  if (bias == nullptr) return load_vec(values);
  if (dtype == DType::kF32) {
    std::memcpy(values, static_cast<const float*>(bias) + at,
                static_cast<size_t>(count) * sizeof(float));
  } else {
    expand_bf16(static_cast<const uint16_t*>(bias) + at, count, values);
  }
  return load_vec(values);
}

inline void round_to_bf16(const float* values, int64_t count, uint16_t* to) {
  int64_t i = 0;
#if defined(__AVX512BF16__)
  for (; i + 16 <= count; i += 16) {
    const __m256bh half = _mm512_cvtneps_pbh(_mm512_loadu_ps(values + i));
    std::memcpy(to + i, &half, sizeof half);
  }
#endif
  for (; i < count; ++i) {
    uint32_t bits = 0;
    std::memcpy(&bits, values + i, sizeof bits);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    to[i] = static_cast<uint16_t>(nan ? (bits >> 16) | 0x40u : rounded);
  }
}

inline void store_some(VecF value, int64_t count, void* y, DType dtype, int64_t at) {
  float values[kLanes];
  store_vec(values, value);
  if (dtype == DType::kF32) {
    std::memcpy(static_cast<float*>(y) + at, values, static_cast<size_t>(count) * sizeof(float));
  } else {
    round_to_bf16(values, count, static_cast<uint16_t*>(y) + at);
  }
}

inline void store_whole(VecF value, void* y, DType dtype, int64_t at) {
  if (dtype == DType::kF32) return store_vec(static_cast<float*>(y) + at, value);
#if defined(__AVX512BF16__)
  const __m256bh half = _mm512_cvtneps_pbh((__m512)value);
  std::memcpy(static_cast<uint16_t*>(y) + at, &half, sizeof half);
#else
  store_some(value, kLanes, y, dtype, at);
#endif
}

// Values are read in whole vectors.
inline void store_row(const float* values, const float* up, Activation gate, const void* bias,
                      const void* up_bias, DType bias_dtype, DType up_bias_dtype, int64_t count,
                      void* y, DType y_dtype) {
  for (int64_t k = 0; k < count; k += kLanes) {
    const int64_t n = smaller(kLanes, count - k);
    VecF value = load_vec(values + k);
    if (bias != nullptr) value += load_bias(bias, bias_dtype, k, n);
    if (gate != Activation::kNone) {
      VecF other = load_vec(up + k);
      if (up_bias != nullptr) other += load_bias(up_bias, up_bias_dtype, k, n);
      value = activate(gate, value) * other;
    }
    if (n == kLanes) {
      store_whole(value, y, y_dtype, k);
    } else {
      store_some(value, n, y, y_dtype, k);
    }
  }
}

// The table's functions for an instruction set that computes in f32 only.
inline Form always_f32(const Weight&, DType) { return Form::kF32; }
inline int64_t always_few(const Weight&, DType) { return kFewRowsAtOnce; }
inline void few_rows_only_f32(const Weight& weight, Form, const FewRows& x, int64_t first,
                              int64_t count, float* y, int64_t y_stride) {
  few_rows_f32(weight, x, first, count, y, y_stride);
}
inline int64_t panel_bytes_f32(Form, int64_t in) {
  return in * kPanel * static_cast<int64_t>(sizeof(float));
}
inline void pack_only_f32(const Weight& weight, Form, int64_t first, int64_t count, void* tile) {
  pack_f32(weight, first, count, static_cast<float*>(tile));
}
inline void many_rows_only_f32(Form, const void* x, int64_t x_stride, int64_t rows, int64_t in,
                               const void* tile, int64_t panels, float* y, int64_t y_stride) {
  many_rows_f32<kRowBlock>(static_cast<const float*>(x), x_stride, rows, in,
                           static_cast<const float*>(tile), panels, y, y_stride);
}

}  // namespace
}  // namespace ttpu::kernels::cpu
