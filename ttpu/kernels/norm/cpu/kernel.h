// Normalization on CPU as a plain function over memory.
#pragma once

#include <cstdint>

#include "ttpu/base/dtype.h"
#include "ttpu/kernels/cpu/isa.h"
#include "ttpu/kernels/cpu/parallel.h"

namespace ttpu::kernels::cpu {

// Dense rows; bf16 or f32.
struct Norm {
  DType dtype = DType::kF32;         // of x, delta, sum and out
  DType weight_dtype = DType::kF32;  // of weight and bias
  const void* x = nullptr;           // [rows, dim]
  const void* delta = nullptr;       // added to x first, or null
  void* sum = nullptr;               // where that goes
  const void* weight = nullptr;      // [dim]
  const void* bias = nullptr;        // [dim] or null
  void* out = nullptr;               // [rows, dim]
  int64_t rows = 0, dim = 0;
  float epsilon = 0;
  bool layer = false;        // subtract the mean
  bool round_first = false;  // the number and the weight are rounded to dtype, then multiplied
  float weight_offset = 0;   // added to the weight
};

void norm(const Norm& call, TaskPool* pool, Isa isa = best_isa());

// What each instruction set compiles for itself: one row.
using NormRow = void (*)(const Norm& call, int64_t row);
extern const NormRow kPortableNorm;
#if defined(__x86_64__)
extern const NormRow kAvx2Norm;
extern const NormRow kAvx512Norm;
#endif

}  // namespace ttpu::kernels::cpu
