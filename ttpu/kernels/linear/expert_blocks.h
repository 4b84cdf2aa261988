// Many rows, each with the weight of its own expert, in StableHLO: they are put together by expert,
// and multiplied in a loop, a block of one expert's rows in each turn. Internal to the linear
// operators.
#pragma once

#include "ttpu/kernels/linear/expert_order.h"
#include "ttpu/kernels/linear/linear.h"

namespace ttpu::kernels::reference {

// Rows of one expert that are multiplied at once: as many as the matrix units are wide.
inline constexpr int64_t kExpertBlock = 128;

// The places of rows in blocks of kExpertBlock, each expert's from the beginning of a block on.
struct ExpertBlocks {
  ir::Value experts;  // [blocks] i32: whose rows a block has
  RowPlaces rows;
};
// `sorted`: as ExpertRows has it.
ExpertBlocks expert_blocks(ir::Value ids, int64_t experts, bool sorted = false);

// Whether so many rows are multiplied so; fewer are not put together.
bool takes_blocks(int64_t rows);

// y = x Wᵀ (+ bias) of rows in blocks [blocks * kExpertBlock, in] with the weights
// [experts, out, in], as the dtype of x. The product with a dense weight is the call of a function
// that knows its gradient.
ir::Value linear_of_blocks(const Target& target, ir::Value x, ir::Value block_experts,
                           const WeightOperand& stacked, const std::optional<ir::Value>& bias);

}  // namespace ttpu::kernels::reference
