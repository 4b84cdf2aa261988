// Rotary position embedding (RoFormer, arXiv:2104.09864) from given tables.
#pragma once

#include "ttpu/ir/value.h"
#include "ttpu/kernels/registry.h"

namespace ttpu::kernels {

enum class RotaryStyle {
  kHalf,         // dimension i turns with i + rot / 2 (Llama, GPT-NeoX)
  kInterleaved,  // dimension 2i turns with 2i + 1 (GPT-J, DeepSeek)
};

// x [tokens, heads, head_dim]; cos and sin [tokens, rot / 2] f32, rot <= head_dim. Dimensions from
// `rot` on pass through. Computed in f32; the result has the shape and dtype of x. Throws
// kInvalidArgument for shapes that do not fit.
ir::Value rotary(const Target& target, ir::Value x, ir::Value cos, ir::Value sin,
                 RotaryStyle style);

// What rotary throws for shapes that do not fit.
void check_rotary(ir::Value x, ir::Value cos, ir::Value sin);

}  // namespace ttpu::kernels
