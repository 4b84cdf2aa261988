#include "ttpu/kernels/rotary/rotary.h"

#include "ttpu/base/error.h"
#include "ttpu/ir/ir.h"

namespace ttpu::kernels {

void check_rotary(ir::Value x, ir::Value cos, ir::Value sin) {
  require(x.rank() == 3 && is_float(x.dtype()),
          "[rotary] x is {}, expected floats [tokens, heads, head_dim]", x.shape().to_string());
  require(cos.rank() == 2 && cos.shape() == sin.shape() && cos.dtype() == DType::kF32 &&
              cos.dim(0) == x.dim(0) && 2 * cos.dim(1) <= x.dim(2),
          "[rotary] cos is {} and sin {}, expected f32 [tokens, rot / 2] for x {}",
          cos.shape().to_string(), sin.shape().to_string(), x.shape().to_string());
}

ir::Value rotary(const Target&, ir::Value x, ir::Value cos, ir::Value sin, RotaryStyle style) {
  check_rotary(x, cos, sin);
  const int64_t tokens = x.dim(0);
  const int64_t heads = x.dim(1);
  const int64_t half = cos.dim(1);
  const int64_t rot = 2 * half;
  const ir::Value c = ir::expand_dims(cos, 1);
  const ir::Value s = ir::expand_dims(sin, 1);
  const ir::Value wide = ir::convert(x, DType::kF32);
  const bool halves = style == RotaryStyle::kHalf;
  const Dims strides = {1, 1, halves ? 1 : 2};
  const ir::Value a = ir::slice(wide, {0, 0, 0}, {tokens, heads, halves ? half : rot}, strides);
  const ir::Value b = ir::slice(wide, {0, 0, halves ? half : 1}, {tokens, heads, rot}, strides);
  const ir::Value first = a * c - b * s;
  const ir::Value second = b * c + a * s;
  ir::Value turned;
  if (halves) {
    turned = ir::concatenate({first, second}, 2);
  } else {
    turned = ir::concatenate({ir::expand_dims(first, 3), ir::expand_dims(second, 3)}, 3);
    turned = ir::reshape(turned, {tokens, heads, rot});
  }
  if (rot < x.dim(2)) {
    const ir::Value rest = ir::slice(wide, {0, 0, rot}, {tokens, heads, x.dim(2)});
    turned = ir::concatenate({turned, rest}, 2);
  }
  return ir::convert(turned, x.dtype());
}

}  // namespace ttpu::kernels
