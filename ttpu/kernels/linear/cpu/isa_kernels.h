// The table of inner kernels which each instruction set fills. Weights, activations and results are
// those of kernel.h; shapes were checked by the caller.
#pragma once

#include "ttpu/kernels/linear/cpu/kernel.h"

namespace ttpu::kernels::cpu {

// How a kernel wants its activations.
enum class Form : int { kF32 = 0, kBf16 = 1, kInt8 = 2 };
inline constexpr int kForms = 3;

// Activations rounded to 8 bits in groups of 32: x ≈ scale * code. A row has `groups` of them, a
// multiple of kGroupsAtOnce; those beyond in / 32 are zeros.
struct Int8Rows {
  int64_t groups = 0;
  int8_t* codes = nullptr;     // [rows, groups, 32]
  int8_t* quads = nullptr;     // the same, four groups at a time: the first 16 of each, the last 16
  float* scales = nullptr;     // [rows, groups]
  float* sums = nullptr;       // [rows, groups]: scale * (sum of the group's codes)
  float* half_sums = nullptr;  // [rows, groups, 2]: the same for each half of a group
};
inline constexpr int64_t kGroupsAtOnce = 16;

// A few rows of activations in every form that the call's weights need.
struct FewRows {
  int64_t rows = 0;
  int64_t in = 0;
  const float* f32 = nullptr;      // [rows, in]
  const uint16_t* bf16 = nullptr;  // [rows, in]
  Int8Rows int8{};
};

inline constexpr int64_t kFewRowsAtOnce = 4;

struct IsaKernels {
  // The form that few rows of activations take for this weight.
  Form (*few_rows_form)(const Weight& weight, DType x_dtype);
  // The rows that few_rows takes at once: kFewRowsAtOnce, or more where it is the faster way for
  // so many.
  int64_t (*rows_at_once)(const Weight& weight, DType x_dtype);
  // The form (kF32 or kBf16) that tiles and many rows of activations take.
  Form (*many_rows_form)(const Weight& weight, DType x_dtype);
  void (*f32_from_bf16)(const uint16_t* from, int64_t count, float* to);
  // Rounds rows [rows, in] of bf16 to 8 bits; in is a multiple of 32.
  void (*quantize)(const uint16_t* x, int64_t rows, int64_t in, const Int8Rows& to);
  // y[r * y_stride + j] = x[r] · W[first + j] for j < count; x.rows is at most rows_at_once.
  void (*few_rows)(const Weight& weight, Form form, const FewRows& x, int64_t first, int64_t count,
                   float* y, int64_t y_stride);
  int64_t panel;      // columns of a panel of a tile
  int64_t row_block;  // rows the tile kernel takes at once
  // Expands rows first .. first + count of the weight into panels, padded with zeros to whole
  // panels. A tile takes tile_bytes(form, in) * (whole panels).
  int64_t (*panel_bytes)(Form form, int64_t in);
  void (*pack)(const Weight& weight, Form form, int64_t first, int64_t count, void* tile);
  // y[r * y_stride + j] = x[r] · tile[j] for rows <= row_block and panels whole panels. x is
  // [rows, in] of f32 or bf16, rows x_stride elements apart.
  void (*many_rows)(Form form, const void* x, int64_t x_stride, int64_t rows, int64_t in,
                    const void* tile, int64_t panels, float* y, int64_t y_stride);
  // Adds the bias, applies the gate (kernel.h) and stores one row. `values` and `up` hold a
  // multiple of 16 numbers.
  void (*store)(const float* values, const float* up, Activation gate, const void* bias,
                const void* up_bias, DType bias_dtype, DType up_bias_dtype, int64_t count, void* y,
                DType y_dtype);
};

extern const IsaKernels kPortableKernels;
#if defined(__x86_64__)
extern const IsaKernels kAvx2Kernels;
extern const IsaKernels kAvx512Kernels;
#endif

}  // namespace ttpu::kernels::cpu
