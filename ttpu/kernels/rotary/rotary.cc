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

namespace {

// A TPU's registers hold eight rows of 128 numbers, which slices of half a head fill in part. There
// the halves change places in a product, which is exact.
bool turns_by_product(const Target& target, ir::Value x, int64_t rot) {
  return target.platform == Platform::kTpu && x.dtype() == DType::kBF16 && rot == x.dim(2);
}

// As RotaryStyle::kHalf, of whole heads.
ir::Value turned_by_product(ir::Value x, ir::Value cos, ir::Value sin) {
  const int64_t size = x.dim(2);
  const Shape square(DType::kS32, {size, size});
  const ir::Value apart =
      ir::abs(ir::iota(x.function(), square, 0) - ir::iota(x.function(), square, 1));
  const ir::Value half = ir::full(x.function(), square, static_cast<double>(size) / 2);
  const ir::Value places =
      ir::convert(ir::compare(apart, half, ir::ComparisonDirection::kEq), x.dtype());
  const ir::Value other = ir::dot_general(x, places, {{}, {}, {2}, {0}}, DType::kF32);
  const auto of_heads = [&](ir::Value first, ir::Value second) {
    return ir::broadcast_in_dim(ir::concatenate({first, second}, 1), x.dims(), {0, 2});
  };
  return ir::convert(x, DType::kF32) * of_heads(cos, cos) + other * of_heads(-sin, sin);
}

}  // namespace

ir::Value rotary(const Target& target, ir::Value x, ir::Value cos, ir::Value sin,
                 RotaryStyle style) {
  check_rotary(x, cos, sin);
  const int64_t tokens = x.dim(0);
  const int64_t heads = x.dim(1);
  const int64_t half = cos.dim(1);
  const int64_t rot = 2 * half;
  const bool halves = style == RotaryStyle::kHalf;
  if (halves && turns_by_product(target, x, rot)) {
    return ir::convert(turned_by_product(x, cos, sin), x.dtype());
  }
  const ir::Value c = ir::expand_dims(cos, 1);
  const ir::Value s = ir::expand_dims(sin, 1);
  const ir::Value wide = ir::convert(x, DType::kF32);
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
