// The linear operators on the CPU as plain functions, without XLA: y = x Wᵀ (+ bias).
//
// What is computed in which precision (accumulation is always f32):
//   activations f32: weights are expanded to f32 in registers or cache; nothing else is rounded.
//   activations bf16, AVX512, few rows (< kGemmRows): dense bf16 weights by exact bf16 products;
//     blocked (GGUF) weights by 8-bit products, the activations rounded to 8 bits per 32 elements
//     (as llama.cpp does): a relative error of about 0.4% of each block's largest activation.
//   activations bf16, AVX512, many rows: f16, int8 and blocked weights are rounded to bf16.
//   activations bf16 elsewhere: as f32.
#pragma once

#include <cstdint>
#include <span>

#include "ttpu/base/dtype.h"
#include "ttpu/base/encoding.h"
#include "ttpu/kernels/cpu/isa.h"
#include "ttpu/kernels/cpu/parallel.h"

namespace ttpu::kernels::cpu {

// From this many rows on, weights are packed into tiles that all rows share; dense bf16 weights on
// AVX512 from 129 on.
inline constexpr int64_t kGemmRows = 8;

enum class Activation : int { kNone = 0, kSilu = 1, kGeluTanh = 2, kGelu = 3 };

// A row-major matrix [out, in]. Dense: elements of `dtype` (kBF16, kF16, kF32, or kS8 with one f32
// scale a row). Blocked: rows of ggml blocks as stored; `dtype` is not read.
struct Weight {
  Encoding encoding = Encoding::kDense;
  DType dtype = DType::kBF16;
  const void* data = nullptr;
  const float* row_scales = nullptr;
  int64_t out = 0;
  int64_t in = 0;
};
// Bytes of one row. Throws kInvalidArgument when `in` is no whole number of blocks or the dtype is
// none of the above.
int64_t row_bytes(const Weight& weight);

// One product of a call; all products of a call share x.
struct Product {
  Weight weight;
  const void* bias = nullptr;  // [out] of bias_dtype (kBF16 or kF32), or null
  DType bias_dtype = DType::kF32;
  void* y = nullptr;     // [rows, out] of LinearCall::y_dtype
  int64_t y_stride = 0;  // elements between rows of y; 0: out
};

struct LinearCall {
  const void* x = nullptr;       // [rows, in] row-major
  DType x_dtype = DType::kBF16;  // kBF16 or kF32
  DType y_dtype = DType::kBF16;  // kBF16 or kF32
  int64_t rows = 0;
  std::span<const Product> products;
  // Not kNone: products are {gate, up}, and products[0].y = activation(gate) * up; products[1].y is
  // not written. Biases are added before.
  Activation gate = Activation::kNone;
};

// Throws kInvalidArgument for shapes and types outside the above.
void linear(const LinearCall& call, TaskPool* pool, Isa isa = best_isa());

struct ExpertCall {
  const void* x = nullptr;  // [rows, in]
  DType x_dtype = DType::kBF16;
  DType y_dtype = DType::kBF16;
  int64_t rows = 0;
  const int32_t* expert_ids = nullptr;  // [rows], in any order
  int64_t experts = 0;
  Weight first;                // the weight of expert 0; the others follow without a gap
  const void* bias = nullptr;  // [experts, out] or null
  DType bias_dtype = DType::kF32;
  void* y = nullptr;  // [rows, out]
};

// y[t] = x[t] · W[expert_ids[t]]ᵀ (+ bias). A row whose id is outside [0, experts) becomes zero.
void expert_linear(const ExpertCall& call, TaskPool* pool, Isa isa = best_isa());

}  // namespace ttpu::kernels::cpu
