// The products of rows with their experts' weights as a Mosaic kernel, one for each chip, shape and
// form of weights: tools/tpu_kernels/expert_linear.py.
#pragma once

#include <optional>

#include "ttpu/kernels/linear/expert_order.h"
#include "ttpu/kernels/linear/linear.h"
#include "ttpu/kernels/tpu/tpu_kernels.h"

namespace ttpu::kernels {

// Rows sorted by expert, in tiles, each of which is visited by every expert that has rows in it.
struct TpuSortedRows {
  RowPlaces rows;
  ir::Value experts;  // [most visits] i32: of each visit its expert
  ir::Value tiles;    // and its tile
  ir::Value bounds;   // [experts + 1] i32: each expert's first row, and the end of the last one's
  ir::Value visits;   // scalar i32: how many there are, or one
};
// `sorted`: as ExpertRows has it.
TpuSortedRows sorted_for_tpu(ir::Value ids, int64_t experts, bool sorted = false);

// Whether there is a kernel for rows [rows, in] of `dtype`, asked of the tool. Says why not.
bool has_tpu_expert_linear(TpuKernels& kernels, ir::Value ids, DType dtype,
                           const WeightOperand& weight, const std::optional<ir::Value>& bias);

// y [rows, out] of x [rows, in], both sorted; any numbers behind the experts' rows. Nothing where
// there is no kernel.
std::optional<ir::Value> tpu_expert_linear(TpuKernels& kernels, ir::Value x,
                                           const TpuSortedRows& sorted, const WeightOperand& weight,
                                           const std::optional<ir::Value>& bias);

}  // namespace ttpu::kernels
