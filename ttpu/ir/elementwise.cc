#include "ttpu/ir/elementwise.h"

#include "ttpu/ir/function.h"
#include "ttpu/ir/infer.h"

namespace ttpu::ir {
namespace {

// Which element types an operator takes, as the StableHLO specification has it.
enum Classes : unsigned { kBool = 1, kSigned = 2, kUnsigned = 4, kFloat = 8 };
constexpr unsigned kInt = kSigned | kUnsigned;

unsigned allowed(OpKind kind) {
  switch (kind) {
    case OpKind::kAbs:
    case OpKind::kSign:
      return kSigned | kFloat;
    case OpKind::kCountLeadingZeros:
    case OpKind::kPopcnt:
    case OpKind::kShiftLeft:
    case OpKind::kShiftRightArithmetic:
    case OpKind::kShiftRightLogical:
      return kInt;
    case OpKind::kNegate:
    case OpKind::kDivide:
    case OpKind::kPower:
    case OpKind::kRemainder:
    case OpKind::kSubtract:
      return kInt | kFloat;
    case OpKind::kNot:
    case OpKind::kAnd:
    case OpKind::kOr:
    case OpKind::kXor:
      return kBool | kInt;
    case OpKind::kAdd:
    case OpKind::kMaximum:
    case OpKind::kMinimum:
    case OpKind::kMultiply:
      return kBool | kInt | kFloat;
    default:
      return kFloat;
  }
}

unsigned class_of(DType dtype) {
  if (dtype == DType::kPred) return kBool;
  if (is_float(dtype)) return kFloat;
  return is_signed_int(dtype) ? kSigned : kUnsigned;
}

std::string class_names(unsigned classes) {
  std::string text;
  const auto add_name = [&](unsigned flag, const char* name) {
    if ((classes & flag) == 0) return;
    if (!text.empty()) text += ", ";
    text += name;
  };
  add_name(kBool, "i1");
  add_name(kSigned, "signed integers");
  add_name(kUnsigned, "unsigned integers");
  add_name(kFloat, "floats");
  return text;
}

void check_class(const OpContext& op) {
  const unsigned classes = allowed(op.kind);
  check((class_of(op.shape(0).dtype) & classes) != 0, op, "is not defined for {}; it takes {}",
        op.shape(0).to_string(), class_names(classes));
}

void check_equal_shapes(const OpContext& op, const Shape& lhs, const Shape& rhs) {
  check(lhs.dtype == rhs.dtype, op, "element types differ: {} and {}; convert one of them",
        lhs.to_string(), rhs.to_string());
  check(lhs.dims == rhs.dims, op, "shapes differ: {} and {}; broadcast one of them",
        lhs.to_string(), rhs.to_string());
}

Value unary(OpKind kind, Value x) { return x.function().append(kind, {x}).result(); }
Value binary(OpKind kind, Value lhs, Value rhs) {
  return lhs.function().append(kind, {lhs, rhs}).result();
}

}  // namespace

std::vector<Shape> infer_unary(const OpContext& op) {
  check_class(op);
  return {op.shape(0)};
}

std::vector<Shape> infer_is_finite(const OpContext& op) {
  check_class(op);
  return {Shape(DType::kPred, op.shape(0).dims)};
}

std::vector<Shape> infer_binary(const OpContext& op) {
  check_equal_shapes(op, op.shape(0), op.shape(1));
  check_class(op);
  return {op.shape(0)};
}

std::vector<Shape> infer_clamp(const OpContext& op) {
  const Shape& x = op.shape(1);
  for (const size_t bound : {size_t{0}, size_t{2}}) {
    const Shape& shape = op.shape(bound);
    const Shape expected(x.dtype, shape.rank() == 0 ? Dims{} : x.dims);
    check(shape == expected, op, "a bound {} for {}; it must be a scalar or of the same shape",
          shape.to_string(), x.to_string());
  }
  return {x};
}

std::vector<Shape> infer_compare(const OpContext& op) {
  check_equal_shapes(op, op.shape(0), op.shape(1));
  const auto type = op.attributes.get<ComparisonType>("compare_type");
  const DType dtype = op.shape(0).dtype;
  const bool fits =
      is_float(dtype)
          ? type == ComparisonType::kFloat || type == ComparisonType::kTotalOrder
          : type == (is_signed_int(dtype) ? ComparisonType::kSigned : ComparisonType::kUnsigned);
  check(fits, op, "comparison type {} does not fit {}", to_string(type), op.shape(0).to_string());
  return {Shape(DType::kPred, op.shape(0).dims)};
}

std::vector<Shape> infer_select(const OpContext& op) {
  check_equal_shapes(op, op.shape(1), op.shape(2));
  const Shape& pred = op.shape(0);
  check(pred.dtype == DType::kPred && (pred.rank() == 0 || pred.dims == op.shape(1).dims), op,
        "pred {} for {}; it must be i1, a scalar or of the same dimensions", pred.to_string(),
        op.shape(1).to_string());
  return {op.shape(1)};
}

std::vector<Shape> infer_map(const OpContext& op) {
  check(!op.operands.empty(), op, "no inputs given");
  std::vector<Shape> scalars;
  for (size_t i = 0; i < op.operands.size(); ++i) {
    check(op.shape(i).dims == op.shape(0).dims, op, "dimensions differ: {}",
          shapes_to_string(op.operands));
    scalars.emplace_back(op.shape(i).dtype, Dims{});
  }
  const Values& yielded = op.regions[0]->yielded();
  check(yielded.size() == 1, op, "the body yields {} values, one expected", yielded.size());
  check_region(op, 0, scalars, {Shape(yielded[0].dtype(), {})});
  return {Shape(yielded[0].dtype(), op.shape(0).dims)};
}

Value abs(Value x) { return unary(OpKind::kAbs, x); }
Value cbrt(Value x) { return unary(OpKind::kCbrt, x); }
Value ceil(Value x) { return unary(OpKind::kCeil, x); }
Value cosine(Value x) { return unary(OpKind::kCosine, x); }
Value count_leading_zeros(Value x) { return unary(OpKind::kCountLeadingZeros, x); }
Value exponential(Value x) { return unary(OpKind::kExponential, x); }
Value exponential_minus_one(Value x) { return unary(OpKind::kExponentialMinusOne, x); }
Value floor(Value x) { return unary(OpKind::kFloor, x); }
Value is_finite(Value x) { return unary(OpKind::kIsFinite, x); }
Value log(Value x) { return unary(OpKind::kLog, x); }
Value log_plus_one(Value x) { return unary(OpKind::kLogPlusOne, x); }
Value logistic(Value x) { return unary(OpKind::kLogistic, x); }
Value negate(Value x) { return unary(OpKind::kNegate, x); }
Value not_(Value x) { return unary(OpKind::kNot, x); }
Value popcnt(Value x) { return unary(OpKind::kPopcnt, x); }
Value round_nearest_afz(Value x) { return unary(OpKind::kRoundNearestAfz, x); }
Value round_nearest_even(Value x) { return unary(OpKind::kRoundNearestEven, x); }
Value rsqrt(Value x) { return unary(OpKind::kRsqrt, x); }
Value sign(Value x) { return unary(OpKind::kSign, x); }
Value sine(Value x) { return unary(OpKind::kSine, x); }
Value sqrt(Value x) { return unary(OpKind::kSqrt, x); }
Value tan(Value x) { return unary(OpKind::kTan, x); }
Value tanh(Value x) { return unary(OpKind::kTanh, x); }

Value add(Value lhs, Value rhs) { return binary(OpKind::kAdd, lhs, rhs); }
Value and_(Value lhs, Value rhs) { return binary(OpKind::kAnd, lhs, rhs); }
Value atan2(Value lhs, Value rhs) { return binary(OpKind::kAtan2, lhs, rhs); }
Value divide(Value lhs, Value rhs) { return binary(OpKind::kDivide, lhs, rhs); }
Value maximum(Value lhs, Value rhs) { return binary(OpKind::kMaximum, lhs, rhs); }
Value minimum(Value lhs, Value rhs) { return binary(OpKind::kMinimum, lhs, rhs); }
Value multiply(Value lhs, Value rhs) { return binary(OpKind::kMultiply, lhs, rhs); }
Value or_(Value lhs, Value rhs) { return binary(OpKind::kOr, lhs, rhs); }
Value power(Value lhs, Value rhs) { return binary(OpKind::kPower, lhs, rhs); }
Value remainder(Value lhs, Value rhs) { return binary(OpKind::kRemainder, lhs, rhs); }
Value shift_left(Value lhs, Value rhs) { return binary(OpKind::kShiftLeft, lhs, rhs); }
Value shift_right_arithmetic(Value lhs, Value rhs) {
  return binary(OpKind::kShiftRightArithmetic, lhs, rhs);
}
Value shift_right_logical(Value lhs, Value rhs) {
  return binary(OpKind::kShiftRightLogical, lhs, rhs);
}
Value subtract(Value lhs, Value rhs) { return binary(OpKind::kSubtract, lhs, rhs); }
Value xor_(Value lhs, Value rhs) { return binary(OpKind::kXor, lhs, rhs); }

Value clamp(Value min, Value x, Value max) {
  return x.function().append(OpKind::kClamp, {min, x, max}).result();
}

Value compare(Value lhs, Value rhs, ComparisonDirection direction,
              std::optional<ComparisonType> type) {
  const DType dtype = lhs.dtype();
  const ComparisonType natural = is_float(dtype)        ? ComparisonType::kFloat
                                 : is_signed_int(dtype) ? ComparisonType::kSigned
                                                        : ComparisonType::kUnsigned;
  return lhs.function()
      .append(OpKind::kCompare, {lhs, rhs},
              {{"comparison_direction", direction}, {"compare_type", type.value_or(natural)}})
      .result();
}

Value select(Value pred, Value on_true, Value on_false) {
  return on_true.function().append(OpKind::kSelect, {pred, on_true, on_false}).result();
}

Value map(const Values& inputs, const std::function<Value(const Values&)>& body) {
  require(!inputs.empty(), "[map] no inputs given");
  Function& function = inputs[0].function();
  std::vector<Shape> scalars;
  for (const Value input : inputs) scalars.emplace_back(input.dtype(), Dims{});
  Region* region = function.build_region(
      scalars, true, [&](const Values& arguments) { return Values{body(arguments)}; });
  Dims dimensions;
  for (int i = 0; i < inputs[0].rank(); ++i) dimensions.push_back(i);
  return function.append(OpKind::kMap, inputs, {{"dimensions", dimensions}}, {region}).result();
}

}  // namespace ttpu::ir
