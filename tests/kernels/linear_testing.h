// Weights of every encoding with what they stand for, and the bounds of the linear kernels' errors.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "ttpu/io/ggml_quant.h"
#include "ttpu/kernels/linear/cpu/kernel.h"

namespace ttpu::kernels::cpu {

inline constexpr Encoding kBlocked[] = {
    Encoding::kQ4_0, Encoding::kQ4_1, Encoding::kQ5_0, Encoding::kQ5_1, Encoding::kQ8_0,
    Encoding::kQ2_K, Encoding::kQ3_K, Encoding::kQ4_K, Encoding::kQ5_K, Encoding::kQ6_K};

// Byte offsets of the f16 scales in a block; every other byte may be anything.
inline std::vector<int> scale_offsets(Encoding encoding) {
  switch (encoding) {
    case Encoding::kQ4_1:
    case Encoding::kQ5_1:
    case Encoding::kQ4_K:
    case Encoding::kQ5_K:
      return {0, 2};
    case Encoding::kQ2_K:
      return {80, 82};
    case Encoding::kQ3_K:
      return {108};
    case Encoding::kQ6_K:
      return {208};
    default:
      return {0};
  }
}

struct TestWeight {
  Weight weight;
  std::vector<uint8_t> bytes;
  std::vector<float> scales;
  std::vector<float> values;  // what it stands for, [out, in]
};

inline TestWeight make_weight(Encoding encoding, DType dtype, int64_t out, int64_t in,
                              std::mt19937& rng) {
  TestWeight w;
  std::normal_distribution<float> normal(0, 0.05f);
  w.scales.assign(static_cast<size_t>(out), 0.01f);
  w.weight = {
      .encoding = encoding, .dtype = dtype, .row_scales = w.scales.data(), .out = out, .in = in};
  const int64_t row = row_bytes(w.weight);
  w.bytes.resize(static_cast<size_t>(out * row));
  w.values.resize(static_cast<size_t>(out * in));
  w.weight.data = w.bytes.data();
  if (encoding != Encoding::kDense) {
    for (uint8_t& byte : w.bytes) byte = static_cast<uint8_t>(rng());
    for (size_t at = 0; at < w.bytes.size(); at += static_cast<size_t>(block_bytes(encoding))) {
      for (int offset : scale_offsets(encoding)) {
        const uint16_t half = f16_from_f32(normal(rng));
        std::memcpy(w.bytes.data() + at + static_cast<size_t>(offset), &half, 2);
      }
    }
    for (int64_t j = 0; j < out; ++j) {
      io::dequantize_row(encoding, reinterpret_cast<const std::byte*>(w.bytes.data() + j * row), in,
                         w.values.data() + j * in);
    }
    return w;
  }
  for (size_t i = 0; i < w.values.size(); ++i) {
    const float value = normal(rng);
    if (dtype == DType::kF32) {
      std::memcpy(w.bytes.data() + 4 * i, &value, 4);
      w.values[i] = value;
    } else if (dtype == DType::kS8) {
      w.bytes[i] = static_cast<uint8_t>(rng());
      float& scale = w.scales[i / static_cast<size_t>(in)];
      if (i % static_cast<size_t>(in) == 0) scale = std::abs(value);
      w.values[i] = scale * static_cast<float>(static_cast<int8_t>(w.bytes[i]));
    } else {
      const uint16_t half = dtype == DType::kBF16 ? bf16_from_f32(value) : f16_from_f32(value);
      std::memcpy(w.bytes.data() + 2 * i, &half, 2);
      w.values[i] = dtype == DType::kBF16 ? f32_from_bf16(half) : f32_from_f16(half);
    }
  }
  return w;
}

// Activations as stored and as numbers.
struct Rows {
  Rows(DType dtype, int64_t rows, int64_t width, std::mt19937& rng) : dtype(dtype) {
    std::normal_distribution<float> normal;
    values.resize(static_cast<size_t>(rows * width));
    bytes.resize(values.size() * (dtype == DType::kF32 ? 4 : 2));
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = normal(rng);
      if (dtype == DType::kBF16) {
        const uint16_t half = bf16_from_f32(values[i]);
        values[i] = f32_from_bf16(half);
        std::memcpy(bytes.data() + 2 * i, &half, 2);
      } else {
        std::memcpy(bytes.data() + 4 * i, &values[i], 4);
      }
    }
  }
  DType dtype;
  std::vector<float> values;
  std::vector<uint8_t> bytes;
};

inline float result_at(const std::vector<uint8_t>& bytes, DType dtype, size_t i) {
  if (dtype == DType::kBF16) {
    uint16_t half;
    std::memcpy(&half, bytes.data() + 2 * i, 2);
    return f32_from_bf16(half);
  }
  float value;
  std::memcpy(&value, bytes.data() + 4 * i, 4);
  return value;
}

struct Expected {
  double value = 0;
  double magnitude = 0;   // sum of |x w|
  double int8_error = 0;  // what rounding x to 8 bits per 32 may cost
};

inline Expected expected_at(const float* x, const float* w, int64_t in) {
  Expected e;
  for (int64_t b = 0; b < in; b += 32) {
    double largest = 0, weights = 0;
    for (int64_t k = b; k < std::min(b + 32, in); ++k) {
      e.value += static_cast<double>(x[k]) * w[k];
      e.magnitude += std::abs(static_cast<double>(x[k]) * w[k]);
      largest = std::max(largest, std::abs(static_cast<double>(x[k])));
      weights += std::abs(static_cast<double>(w[k]));
    }
    e.int8_error += largest / 254 * weights;
  }
  return e;
}

// The bounds that kernel.h states: f32 summation; weights rounded to bf16 (by at most 2^-8);
// activations rounded to 8 bits.
inline double allowed(const Expected& e, Isa isa, const Weight& w, DType x_dtype, int64_t rows) {
  const double sum_error = 1e-5 * e.magnitude + 1e-6;
  if (isa != Isa::kAvx512 || x_dtype == DType::kF32) return sum_error;
  const bool blocked = w.encoding != Encoding::kDense;
  if (rows < kGemmRows) return blocked ? sum_error + 1.001 * e.int8_error : sum_error;
  const bool rounded = blocked || w.dtype == DType::kF16 || w.dtype == DType::kS8;
  return rounded ? sum_error + e.magnitude / 256 : sum_error;
}

}  // namespace ttpu::kernels::cpu
