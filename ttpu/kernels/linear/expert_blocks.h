// Many rows, each with the weight of its own expert: sorted by expert, and multiplied in a loop, a
// block of one expert's rows in each turn. Internal to the linear operators.
#pragma once

#include "ttpu/kernels/linear/linear.h"

namespace ttpu::kernels::reference {

// Rows of one expert that are multiplied at once: as many as the matrix units are wide.
inline constexpr int64_t kExpertBlock = 128;

// [rows, experts] i1: the expert of each row.
ir::Value one_hot(ir::Value ids, int64_t experts);

// expert_linear without bias, of `dtype`; any numbers for an id that is not an expert's. Of a dense
// weight it is the call of a function that knows its gradient, which has none for such rows.
ir::Value experts_by_blocks(const Target& target, ir::Value x, ir::Value ids,
                            const WeightOperand& stacked, DType dtype);

}  // namespace ttpu::kernels::reference
