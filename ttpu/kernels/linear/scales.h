// Weights with scales, in StableHLO. Internal to the linear operators.
#pragma once

#include "ttpu/kernels/linear/linear.h"

namespace ttpu::kernels {

// A factor for each row, not for groups of its columns or for blocks.
bool has_row_scales(const WeightOperand& weight);

// Factors for groups of a row's columns; each row has its own.
bool has_group_scales(const WeightOperand& weight);

// Neighbouring rows that share their factors: those of a block, else 1.
int64_t rows_in_block(const WeightOperand& weight);

// The values of a weight of blocks, [.., out, in], as [.., blocks, rows, in].
ir::Value in_row_blocks(const WeightOperand& weight);

// The numbers that a weight of groups stands for, in the dimensions of its values.
ir::Value numbers_in_groups(const WeightOperand& weight, DType dtype);

// Factors of blocks, one for each column: [.., blocks, groups] to f32 [.., blocks, in].
ir::Value of_columns(ir::Value factors, const WeightOperand& weight);

// The numbers that a weight of blocks stands for, [.., blocks, rows, in]. Factors are spread over
// columns while they are few, and over rows beside the values: spread in one step, the TPU compiler
// writes them out, four bytes for each number.
ir::Value numbers_in_blocks(const WeightOperand& weight, DType dtype);

}  // namespace ttpu::kernels
