// Numbers as the caches of the attention tests hold them, one at a time and plainly.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "ttpu/base/dtype.h"

namespace ttpu::kernels {

inline int64_t cache_bytes(DType dtype, int64_t size) {
  if (dtype == DType::kF32) return 4 * size;
  if (dtype == DType::kBF16) return 2 * size;
  return dtype == DType::kS8 ? size + 4 : size;
}

// Heads of `size` numbers each.
inline std::vector<char> encode_heads(const std::vector<float>& values, DType dtype, int64_t size) {
  const auto count = static_cast<int64_t>(values.size()) / size;
  const int64_t bytes = cache_bytes(dtype, size);
  std::vector<char> out(static_cast<size_t>(count * bytes));
  for (int64_t head = 0; head < count; ++head) {
    const float* from = &values[static_cast<size_t>(head * size)];
    char* to = &out[static_cast<size_t>(head * bytes)];
    float most = 0;
    for (int64_t i = 0; i < size; ++i) most = std::max(most, std::abs(from[i]));
    if (std::isnan(from[0])) most = from[0];
    for (int64_t i = 0; i < size; ++i) {
      if (dtype == DType::kF32) {
        std::memcpy(to + 4 * i, from + i, 4);
      } else if (dtype == DType::kBF16) {
        const uint16_t half = bf16_from_f32(from[i]);
        std::memcpy(to + 2 * i, &half, 2);
      } else if (dtype == DType::kF8E4M3FN) {
        const float x = std::isnan(from[i]) ? from[i] : std::clamp(from[i], -448.F, 448.F);
        to[i] = static_cast<char>(f8e4m3fn_from_f32(x));
      } else {
        to[i] = std::isnan(most) ? char{1}
                                 : static_cast<char>(std::nearbyint(from[i] * (127.F / most)));
      }
    }
    const float scale = most * (1.F / 127.F);
    if (dtype == DType::kS8) std::memcpy(to + size, &scale, 4);
  }
  return out;
}

inline std::vector<float> decode_heads(const char* bytes, DType dtype, int64_t size,
                                       int64_t heads) {
  std::vector<float> out;
  const int64_t stride = cache_bytes(dtype, size);
  for (int64_t head = 0; head < heads; ++head) {
    const char* from = bytes + head * stride;
    float scale = 1;
    if (dtype == DType::kS8) std::memcpy(&scale, from + size, 4);
    for (int64_t i = 0; i < size; ++i) {
      float value = 0;
      uint16_t half = 0;
      if (dtype == DType::kF32) std::memcpy(&value, from + 4 * i, 4);
      if (dtype == DType::kBF16) std::memcpy(&half, from + 2 * i, 2);
      if (dtype == DType::kBF16) value = f32_from_bf16(half);
      if (dtype == DType::kF8E4M3FN) value = f32_from_f8e4m3fn(static_cast<uint8_t>(from[i]));
      if (dtype == DType::kS8) value = static_cast<float>(static_cast<int8_t>(from[i])) * scale;
      out.push_back(value);
    }
  }
  return out;
}

}  // namespace ttpu::kernels
