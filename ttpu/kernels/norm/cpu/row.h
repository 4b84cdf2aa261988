// One row, in the compiler's vector types.
#pragma once

#include <cmath>

#include "ttpu/kernels/cpu/scratch.h"
#include "ttpu/kernels/cpu/simd.h"
#include "ttpu/kernels/norm/cpu/kernel.h"

namespace ttpu::kernels::cpu {
namespace {

// A vector from element `index` on; lanes behind `dim` are 0.
inline VecF read_at(const void* from, DType dtype, int64_t index, int64_t dim) {
  if (index + kLanes <= dim) {
    if (dtype == DType::kF32) return load<VecF>(static_cast<const float*>(from) + index);
    const auto half = load<VecH>(static_cast<const uint16_t*>(from) + index);
    const VecU bits = __builtin_convertvector(half, VecU) << 16;
    return load<VecF>(&bits);
  }
  float values[kLanes];
  const char* at = static_cast<const char*>(from) + index * (dtype == DType::kF32 ? 4 : 2);
  expand(at, dtype, dim - index, kLanes, values);
  return load<VecF>(values);
}

inline VecF rounded(VecF v, DType dtype) {
  if (dtype == DType::kF32) return v;
  const VecU bits = __builtin_convertvector(halves_of(v), VecU) << 16;
  return load<VecF>(&bits);
}

inline void write_at(void* to, DType dtype, int64_t index, int64_t dim, VecF v) {
  if (dtype == DType::kF32) {
    store_some(static_cast<float*>(to) + index, v, dim - index);
  } else {
    store_some(static_cast<uint16_t*>(to) + index, halves_of(v), dim - index);
  }
}

void norm_row(const Norm& c, int64_t row) {
  const int64_t offset = row * c.dim * (c.dtype == DType::kF32 ? 4 : 2);
  const void* x = static_cast<const char*>(c.x) + offset;
  void* out = static_cast<char*>(c.out) + offset;
  auto* wide = thread_scratch_of<float>(0, round_up(c.dim, kLanes));
  VecF total{};
  for (int64_t i = 0; i < c.dim; i += kLanes) {
    VecF v = read_at(x, c.dtype, i, c.dim);
    if (c.delta != nullptr) {
      v += read_at(static_cast<const char*>(c.delta) + offset, c.dtype, i, c.dim);
      v = rounded(v, c.dtype);
      write_at(static_cast<char*>(c.sum) + offset, c.dtype, i, c.dim, v);
    }
    store(wide + i, v);
    total += c.layer ? v : v * v;
  }
  float mean = sum_of(total) / static_cast<float>(c.dim);
  const VecI lane = lane_numbers();
  if (c.layer) {
    VecF squares{};
    for (int64_t i = 0; i < c.dim; i += kLanes) {
      VecF v = load<VecF>(wide + i) - mean;
      v = lane < static_cast<int32_t>(c.dim - i) ? v : VecF{};
      store(wide + i, v);
      squares += v * v;
    }
    mean = sum_of(squares) / static_cast<float>(c.dim);
  }
  const float factor = 1.f / std::sqrt(mean + c.epsilon);
  for (int64_t i = 0; i < c.dim; i += kLanes) {
    VecF v = load<VecF>(wide + i) * factor;
    VecF weight = read_at(c.weight, c.weight_dtype, i, c.dim) + c.weight_offset;
    if (c.round_first) {
      v = rounded(v, c.dtype);
      weight = rounded(weight, c.dtype);
    }
    v *= weight;
    if (c.bias != nullptr) v += read_at(c.bias, c.weight_dtype, i, c.dim);
    write_at(out, c.dtype, i, c.dim, v);
  }
}

}  // namespace
}  // namespace ttpu::kernels::cpu
