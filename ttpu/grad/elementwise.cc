#include "ttpu/grad/rules.h"
#include "ttpu/ir/ir.h"

namespace ttpu::grad {
namespace {

using ir::Value;

Value zeros(Value like) { return ir::full_like(like, 0); }

// f'(x), y being f(x).
Value slope(const Reverse& reverse, Value x, Value y) {
  switch (reverse.operation().kind) {
    case ir::OpKind::kAbs:
      return ir::sign(x);
    case ir::OpKind::kCbrt:
      return 1.0 / (3.0 * (y * y));
    case ir::OpKind::kCosine:
      return -ir::sine(x);
    case ir::OpKind::kExponential:
      return y;
    case ir::OpKind::kExponentialMinusOne:
      return y + 1.0;
    case ir::OpKind::kLog:
      return 1.0 / x;
    case ir::OpKind::kLogPlusOne:
      return 1.0 / (x + 1.0);
    case ir::OpKind::kLogistic:
      return y * (1.0 - y);
    case ir::OpKind::kRsqrt:
      return -0.5 * (y * y * y);
    case ir::OpKind::kSine:
      return ir::cosine(x);
    case ir::OpKind::kSqrt:
      return 0.5 / y;
    case ir::OpKind::kTan:
      return y * y + 1.0;
    case ir::OpKind::kTanh:
      return 1.0 - y * y;
    default:
      reverse.refuse("has no gradient");
  }
}

// Equal operands share it, as JAX has it.
void reverse_extremum(const Reverse& reverse, ir::ComparisonDirection better) {
  const Value ct = reverse.cotangent();
  const Value a = reverse.operand(0);
  const Value b = reverse.operand(1);
  const auto share = [&](Value own, Value other) {
    const Value half =
        ir::select(ir::compare(own, other, ir::ComparisonDirection::kEq), ct * 0.5, zeros(ct));
    return ir::select(ir::compare(own, other, better), ct, half);
  };
  reverse.give(0, [&] { return share(a, b); });
  reverse.give(1, [&] { return share(b, a); });
}

void reverse_power(const Reverse& reverse) {
  const Value ct = reverse.cotangent();
  const Value x = reverse.operand(0);
  const Value y = reverse.operand(1);
  reverse.give(0, [&] { return ct * y * ir::power(x, y - 1.0); });
  reverse.give(1, [&] {
    // 0^y has no slope in y.
    const Value is_zero = ir::compare(x, zeros(x), ir::ComparisonDirection::kEq);
    const Value safe = ir::select(is_zero, zeros(x) + 1.0, x);
    return ct * ir::log(safe) * reverse.result();
  });
}

void reverse_atan2(const Reverse& reverse) {
  const Value ct = reverse.cotangent();
  const Value y = reverse.operand(0);
  const Value x = reverse.operand(1);
  const Value square = x * x + y * y;
  reverse.give(0, [&] { return ct * x / square; });
  reverse.give(1, [&] { return -ct * y / square; });
}

// x - y * trunc(x / y)
void reverse_remainder(const Reverse& reverse) {
  const Value ct = reverse.cotangent();
  reverse.give(0, [&] { return ct; });
  reverse.give(1, [&] {
    const Value whole = (reverse.operand(0) - reverse.result()) / reverse.operand(1);
    return -ct * ir::round_nearest_even(whole);
  });
}

}  // namespace

void reverse_nothing(const Reverse&) {}

void reverse_unary(const Reverse& reverse) {
  const Value ct = reverse.cotangent();
  reverse.give(0, [&] {
    if (reverse.operation().kind == ir::OpKind::kNegate) return -ct;
    return ct * slope(reverse, reverse.operand(0), reverse.result());
  });
}

void reverse_binary(const Reverse& reverse) {
  const Value ct = reverse.cotangent();
  const Value lhs = reverse.operand(0);
  const Value rhs = reverse.operand(1);
  switch (reverse.operation().kind) {
    case ir::OpKind::kAdd:
      reverse.give(0, [&] { return ct; });
      reverse.give(1, [&] { return ct; });
      return;
    case ir::OpKind::kSubtract:
      reverse.give(0, [&] { return ct; });
      reverse.give(1, [&] { return -ct; });
      return;
    case ir::OpKind::kMultiply:
      reverse.give(0, [&] { return ct * rhs; });
      reverse.give(1, [&] { return ct * lhs; });
      return;
    case ir::OpKind::kDivide:
      reverse.give(0, [&] { return ct / rhs; });
      reverse.give(1, [&] { return -ct * reverse.result() / rhs; });
      return;
    case ir::OpKind::kMaximum:
      return reverse_extremum(reverse, ir::ComparisonDirection::kGt);
    case ir::OpKind::kMinimum:
      return reverse_extremum(reverse, ir::ComparisonDirection::kLt);
    case ir::OpKind::kPower:
      return reverse_power(reverse);
    case ir::OpKind::kAtan2:
      return reverse_atan2(reverse);
    case ir::OpKind::kRemainder:
      return reverse_remainder(reverse);
    default:
      reverse.refuse("has no gradient");
  }
}

void reverse_clamp(const Reverse& reverse) {
  if (reverse.wants(0) || reverse.wants(2)) reverse.refuse("has no gradient of its bounds");
  reverse.give(1, [&] {
    const Value x = reverse.operand(1);
    const Value low = ir::broadcast_to(reverse.operand(0), x.dims());
    const Value high = ir::broadcast_to(reverse.operand(2), x.dims());
    const Value inside = ir::and_(ir::compare(x, low, ir::ComparisonDirection::kGe),
                                  ir::compare(x, high, ir::ComparisonDirection::kLe));
    return ir::select(inside, reverse.cotangent(), zeros(x));
  });
}

void reverse_select(const Reverse& reverse) {
  const Value ct = reverse.cotangent();
  const Value pred = reverse.operand(0);
  reverse.give(1, [&] { return ir::select(pred, ct, zeros(ct)); });
  reverse.give(2, [&] { return ir::select(pred, zeros(ct), ct); });
}

void reverse_convert(const Reverse& reverse) {
  reverse.give(0, [&] { return ir::convert(reverse.cotangent(), reverse.operand(0).dtype()); });
}

// Rounding has the slope of what it rounds.
void reverse_reduce_precision(const Reverse& reverse) {
  reverse.give(0, [&] { return reverse.cotangent(); });
}

}  // namespace ttpu::grad
