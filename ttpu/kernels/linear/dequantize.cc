// ggml's blocks in StableHLO. The layouts are those of linear/cpu/blocks.h, written for whole
// arrays: N rows of B blocks are [N, B, bytes], and the parts of a block become trailing
// dimensions.
#include "ttpu/base/error.h"
#include "ttpu/ir/ir.h"
#include "ttpu/kernels/linear/linear.h"

namespace ttpu::kernels {
namespace {

using ir::Value;

// Bytes [from, from + count) of every block.
Value part(Value blocks, int64_t from, int64_t count) {
  return ir::slice(blocks, {0, 0, from}, {blocks.dim(0), blocks.dim(1), from + count});
}

// The f16 at byte `at` of every block as f32 [N, B, 1].
Value half(Value blocks, int64_t at) {
  const Value number = ir::bitcast_convert(part(blocks, at, 2), DType::kF16);
  return ir::expand_dims(ir::convert(number, DType::kF32), -1);
}

Value f32(Value x) { return ir::convert(x, DType::kF32); }

Value masked(Value x, int mask) { return ir::and_(x, ir::full_like(x, mask)); }
Value left(Value x, int by) { return ir::shift_left(x, ir::full_like(x, by)); }
Value right(Value x, int by) { return ir::shift_right_logical(x, ir::full_like(x, by)); }

// [N, B, groups * width] to [N, B, groups, count, width]: each byte shifted right by 0, step,
// 2 step, ..., and masked.
Value fields(Value x, int64_t groups, int64_t count, int step, int mask) {
  const int64_t width = x.dim(2) / groups;
  const Value grouped = ir::reshape(x, {x.dim(0), x.dim(1), groups, 1, width});
  std::vector<Value> shifted;
  for (int64_t i = 0; i < count; ++i) {
    shifted.push_back(masked(right(grouped, static_cast<int>(i) * step), mask));
  }
  return ir::concatenate(shifted, 3);
}

Value grouped(Value x, int64_t groups) {
  return ir::reshape(
      x, {x.dim(0), x.dim(1), groups, x.shape().num_elements() / (x.dim(0) * x.dim(1) * groups)});
}

// Q4_0 to Q5_1: nibbles at `at`, a fifth bit from the four bytes at `fifth` unless negative.
Value small_codes(Value blocks, int64_t at, int64_t fifth) {
  const Value nibbles = grouped(fields(part(blocks, at, 16), 1, 2, 4, 15), 1);
  if (fifth < 0) return f32(nibbles);
  // [N, B, 4 bytes, 8 bits]: bit i belongs to element i.
  const Value bits = grouped(fields(part(blocks, fifth, 4), 4, 8, 1, 1), 1);
  return f32(ir::or_(nibbles, left(bits, 4)));
}

struct Scales {
  Value scale;  // [N, B, 8, 1]
  Value minimum;
};

// The 6-bit scales and minima of Q4_K and Q5_K.
Scales k4_scales(Value blocks) {
  const Value a = part(blocks, 4, 4), b = part(blocks, 8, 4), c = part(blocks, 12, 4);
  const auto joined = [](Value low, Value high) {
    return grouped(f32(ir::concatenate({low, high}, 2)), 8);
  };
  const Value scale = joined(masked(a, 63), ir::or_(masked(c, 15), left(right(a, 6), 4)));
  const Value minimum = joined(masked(b, 63), ir::or_(right(c, 4), left(right(b, 6), 4)));
  return {scale * ir::expand_dims(half(blocks, 0), -1),
          minimum * ir::expand_dims(half(blocks, 2), -1)};
}

Value q2_k(Value blocks) {
  const Value heads = part(blocks, 0, 16);
  const Value scale = grouped(f32(masked(heads, 15)) * half(blocks, 80), 16);
  const Value minimum = grouped(f32(right(heads, 4)) * half(blocks, 82), 16);
  const Value codes = grouped(f32(fields(part(blocks, 16, 64), 2, 4, 2, 3)), 16);
  return scale * codes - minimum;
}

Value q3_k(Value blocks) {
  const Value low = fields(part(blocks, 32, 64), 2, 4, 2, 3);  // [N, B, 2, 4, 32]
  const Value high = grouped(fields(part(blocks, 0, 32), 1, 8, 1, 1), 16);
  const Value codes = f32(ir::or_(grouped(low, 16), left(high, 2))) - 4.0;
  const Value four = grouped(fields(part(blocks, 96, 8), 1, 2, 4, 15), 16);
  const Value two = grouped(fields(part(blocks, 104, 4), 1, 4, 2, 3), 16);
  const Value scale = f32(ir::or_(four, left(two, 4))) - 32.0;
  return codes * (scale * ir::expand_dims(half(blocks, 108), -1));
}

Value q4_k(Value blocks) {
  const auto [scale, minimum] = k4_scales(blocks);
  return scale * f32(grouped(fields(part(blocks, 16, 128), 4, 2, 4, 15), 8)) - minimum;
}

Value q5_k(Value blocks) {
  const auto [scale, minimum] = k4_scales(blocks);
  const Value low = grouped(fields(part(blocks, 48, 128), 4, 2, 4, 15), 8);
  const Value fifth = grouped(fields(part(blocks, 16, 32), 1, 8, 1, 1), 8);
  return scale * f32(ir::or_(low, left(fifth, 4))) - minimum;
}

Value q6_k(Value blocks) {
  const Value low = grouped(fields(part(blocks, 0, 128), 2, 2, 4, 15), 16);
  const Value high = grouped(fields(part(blocks, 128, 64), 2, 4, 2, 3), 16);
  const Value codes = f32(ir::or_(low, left(high, 4))) - 32.0;
  const Value signed_scale = f32(ir::bitcast_convert(part(blocks, 192, 16), DType::kS8));
  return codes * grouped(signed_scale * half(blocks, 208), 16);
}

// f32 [N, B, ...] with the block's elements in order.
Value expand(Value blocks, Encoding encoding) {
  const auto wide = [&](int64_t at) { return ir::expand_dims(half(blocks, at), -1); };
  switch (encoding) {
    case Encoding::kQ4_0:
      return (small_codes(blocks, 2, -1) - 8.0) * wide(0);
    case Encoding::kQ4_1:
      return small_codes(blocks, 4, -1) * wide(0) + wide(2);
    case Encoding::kQ5_0:
      return (small_codes(blocks, 6, 2) - 16.0) * wide(0);
    case Encoding::kQ5_1:
      return small_codes(blocks, 8, 4) * wide(0) + wide(2);
    case Encoding::kQ8_0:
      return f32(ir::bitcast_convert(part(blocks, 2, 32), DType::kS8)) * half(blocks, 0);
    case Encoding::kQ2_K:
      return q2_k(blocks);
    case Encoding::kQ3_K:
      return q3_k(blocks);
    case Encoding::kQ4_K:
      return q4_k(blocks);
    case Encoding::kQ5_K:
      return q5_k(blocks);
    case Encoding::kQ6_K:
      return q6_k(blocks);
    case Encoding::kDense:
      break;
  }
  fail(Code::kInvalidArgument, "[dequantize] the weight is dense; expected blocks");
}

}  // namespace

Value dequantize(Value bytes, Encoding encoding, DType dtype) {
  require(encoding != Encoding::kDense, "[dequantize] the weight is dense; expected blocks");
  const int64_t size = block_bytes(encoding);
  require(bytes.dtype() == DType::kU8 && bytes.rank() > 0 && bytes.dim(-1) % size == 0,
          "[dequantize] {} is no array of {} blocks of {} bytes", bytes.shape().to_string(),
          encoding_name(encoding), size);
  Dims dims = bytes.dims();
  const int64_t per_row = dims.back() / size;
  dims.back() = per_row * block_elements(encoding);
  int64_t rows = 1;
  for (size_t i = 0; i + 1 < dims.size(); ++i) rows *= dims[i];
  const Value numbers = expand(ir::reshape(bytes, {rows, per_row, size}), encoding);
  return ir::convert(ir::reshape(numbers, dims), dtype);
}

}  // namespace ttpu::kernels
