#include "ttpu/ir/reduce.h"

#include "ttpu/ir/constant.h"
#include "ttpu/ir/elementwise.h"
#include "ttpu/ir/function.h"
#include "ttpu/ir/infer.h"
#include "ttpu/ir/shape_ops.h"

namespace ttpu::ir {
namespace {

// Operands then inits, as many of each; operands of equal dimensions, inits scalars of their types.
size_t check_reduction(const OpContext& op) {
  const size_t count = op.operands.size() / 2;
  check(count > 0 && op.operands.size() % 2 == 0, op,
        "{} operands and inits given; as many of each expected", op.operands.size());
  std::vector<Shape> scalars;
  for (size_t i = 0; i < count; ++i) {
    check(op.shape(i).dims == op.shape(0).dims, op, "operands of different dimensions: {}",
          shapes_to_string(op.operands));
    scalars.emplace_back(op.shape(i).dtype, Dims{});
    check(op.shape(count + i) == scalars.back(), op, "init {} for operand {}",
          op.shape(count + i).to_string(), op.shape(i).to_string());
  }
  std::vector<Shape> arguments = scalars;
  arguments.insert(arguments.end(), scalars.begin(), scalars.end());
  check_region(op, 0, arguments, scalars);
  return count;
}

std::vector<WindowDim> windows(const OpContext& op, const Dims& size, const Dims& strides,
                               const Dims& base, const Dims& window, const IntMatrix& padding) {
  const auto rank = static_cast<size_t>(op.shape(0).rank());
  check(size.size() == rank && strides.size() == rank && base.size() == rank &&
            window.size() == rank && padding.rows.size() == rank,
        op, "window dimensions, strides, dilations and padding need {} entries, as {} has", rank,
        op.shape(0).to_string());
  std::vector<WindowDim> result;
  for (size_t i = 0; i < rank; ++i) {
    result.push_back(
        {size[i], strides[i], padding.rows[i].at(0), padding.rows[i].at(1), base[i], window[i]});
  }
  return result;
}

Dims windowed_dims(const OpContext& op, const std::vector<WindowDim>& all) {
  Dims dims;
  for (size_t i = 0; i < all.size(); ++i) {
    dims.push_back(window_output_size(op, op.shape(0).dims[i], all[i]));
  }
  return dims;
}

IntMatrix padding_matrix(const std::vector<std::pair<int64_t, int64_t>>& padding, size_t rank) {
  IntMatrix matrix{2, {}};
  for (const auto& [low, high] : padding) matrix.rows.push_back({low, high});
  if (padding.empty()) matrix.rows.assign(rank, Dims{0, 0});
  return matrix;
}

Dims or_ones(Dims dims, size_t rank) {
  if (dims.empty()) dims.assign(rank, 1);
  return dims;
}

std::vector<Shape> scalars_of(const Values& first, const Values& second) {
  std::vector<Shape> scalars;
  for (const Value value : first) scalars.emplace_back(value.dtype(), Dims{});
  for (const Value value : second) scalars.emplace_back(value.dtype(), Dims{});
  return scalars;
}

Values joined(const Values& first, const Values& second) {
  Values all = first;
  all.insert(all.end(), second.begin(), second.end());
  return all;
}

Value reduce_one(const char* name, Value x, const Dims& axes, bool keep_dims, Value init,
                 Value (*combine)(Value, Value)) {
  const Dims dims = normalize_axes(name, axes, x.rank());
  const Value result = reduce({x}, {init}, dims, [&](const Values& arguments) {
    return Values{combine(arguments[0], arguments[1])};
  })[0];
  if (!keep_dims) return result;
  Dims kept = x.dims();
  for (const int64_t dim : dims) kept[static_cast<size_t>(dim)] = 1;
  return reshape(result, std::move(kept));
}

}  // namespace

std::vector<Shape> infer_reduce(const OpContext& op) {
  const size_t count = check_reduction(op);
  const auto& dims = op.attributes.get<Dims>("dimensions");
  check_dims(op, dims, op.shape(0).rank(), "dimensions");
  std::vector<Shape> results;
  for (size_t i = 0; i < count; ++i) {
    results.emplace_back(op.shape(i).dtype, remove_dims(op.shape(0).dims, dims));
  }
  return results;
}

std::vector<Shape> infer_reduce_window(const OpContext& op) {
  const size_t count = check_reduction(op);
  const Attributes& a = op.attributes;
  const Dims dims =
      windowed_dims(op, windows(op, a.get<Dims>("window_dimensions"), a.get<Dims>("window_strides"),
                                a.get<Dims>("base_dilations"), a.get<Dims>("window_dilations"),
                                a.get<IntMatrix>("padding")));
  std::vector<Shape> results;
  for (size_t i = 0; i < count; ++i) results.emplace_back(op.shape(i).dtype, dims);
  return results;
}

std::vector<Shape> infer_select_and_scatter(const OpContext& op) {
  const Shape& operand = op.shape(0);
  const Dims ones(operand.dims.size(), 1);
  const Attributes& a = op.attributes;
  const Dims dims =
      windowed_dims(op, windows(op, a.get<Dims>("window_dimensions"), a.get<Dims>("window_strides"),
                                ones, ones, a.get<IntMatrix>("padding")));
  check(op.shape(1) == Shape(operand.dtype, dims), op, "source {}, expected {}",
        op.shape(1).to_string(), Shape(operand.dtype, dims).to_string());
  const Shape scalar_shape(operand.dtype, {});
  check(op.shape(2) == scalar_shape, op, "init {} for {}", op.shape(2).to_string(),
        operand.to_string());
  check_region(op, 0, {scalar_shape, scalar_shape}, {Shape(DType::kPred, {})});
  check_region(op, 1, {scalar_shape, scalar_shape}, {scalar_shape});
  return {operand};
}

std::vector<Shape> infer_sort(const OpContext& op) {
  check(!op.operands.empty(), op, "no operands given");
  std::vector<Shape> arguments;
  for (size_t i = 0; i < op.operands.size(); ++i) {
    check(op.shape(i).dims == op.shape(0).dims, op, "operands of different dimensions: {}",
          shapes_to_string(op.operands));
    arguments.insert(arguments.end(), 2, Shape(op.shape(i).dtype, {}));
  }
  const auto dim = op.attributes.get<int64_t>("dimension");
  check(dim >= 0 && dim < op.shape(0).rank(), op, "dimension {} of {}", dim,
        op.shape(0).to_string());
  check_region(op, 0, arguments, {Shape(DType::kPred, {})});
  return shapes_of(op.operands);
}

std::vector<Shape> infer_batch_norm_inference(const OpContext& op) {
  const Shape& x = op.shape(0);
  const auto feature = op.attributes.get<int64_t>("feature_index");
  check(is_float(x.dtype), op, "is not defined for {}; it takes floats", x.to_string());
  check(feature >= 0 && feature < x.rank(), op, "feature_index {} of {}", feature, x.to_string());
  const Shape expected(x.dtype, {x.dims[static_cast<size_t>(feature)]});
  for (size_t i = 1; i < 5; ++i) {
    check(op.shape(i) == expected, op, "operand {} is {}, expected {}", i, op.shape(i).to_string(),
          expected.to_string());
  }
  return {x};
}

Values reduce(const Values& operands, const Values& inits, Dims dimensions, const Body& body) {
  require(!operands.empty() && operands.size() == inits.size(),
          "[reduce] {} operands and {} inits; as many of each expected", operands.size(),
          inits.size());
  Function& function = operands[0].function();
  Region* region = function.build_region(scalars_of(inits, operands), true, body);
  return function
      .append(OpKind::kReduce, joined(operands, inits), {{"dimensions", std::move(dimensions)}},
              {region})
      .results;
}

Value reduce_sum(Value x, const Dims& axes, bool keep_dims) {
  return reduce_one("reduce_sum", x, axes, keep_dims, scalar(x.function(), x.dtype(), 0), add);
}
Value reduce_max(Value x, const Dims& axes, bool keep_dims) {
  return reduce_one("reduce_max", x, axes, keep_dims, lowest(x.function(), x.dtype()), maximum);
}
Value reduce_min(Value x, const Dims& axes, bool keep_dims) {
  return reduce_one("reduce_min", x, axes, keep_dims, highest(x.function(), x.dtype()), minimum);
}
Value reduce_and(Value x, const Dims& axes, bool keep_dims) {
  // All bits set: -1 where the type is signed.
  const Value ones = is_signed_int(x.dtype()) ? scalar(x.function(), x.dtype(), -1)
                                              : highest(x.function(), x.dtype());
  return reduce_one("reduce_and", x, axes, keep_dims, ones, and_);
}
Value reduce_or(Value x, const Dims& axes, bool keep_dims) {
  return reduce_one("reduce_or", x, axes, keep_dims, scalar(x.function(), x.dtype(), 0), or_);
}

Values reduce_window(const Values& operands, const Values& inits, Dims window_dimensions,
                     const WindowOptions& options, const Body& body) {
  require(!operands.empty() && operands.size() == inits.size(),
          "[reduce_window] {} operands and {} inits; as many of each expected", operands.size(),
          inits.size());
  Function& function = operands[0].function();
  const auto rank = static_cast<size_t>(operands[0].rank());
  Region* region = function.build_region(scalars_of(inits, operands), true, body);
  return function
      .append(OpKind::kReduceWindow, joined(operands, inits),
              {{"window_dimensions", std::move(window_dimensions)},
               {"window_strides", or_ones(options.strides, rank)},
               {"base_dilations", or_ones(options.base_dilations, rank)},
               {"window_dilations", or_ones(options.window_dilations, rank)},
               {"padding", padding_matrix(options.padding, rank)}},
              {region})
      .results;
}

Value select_and_scatter(Value operand, Value source, Value init, Dims window_dimensions,
                         Dims window_strides,
                         const std::vector<std::pair<int64_t, int64_t>>& padding,
                         const BinaryBody& select, const BinaryBody& scatter) {
  Function& function = operand.function();
  const auto rank = static_cast<size_t>(operand.rank());
  const Shape scalar_shape(operand.dtype(), {});
  const auto region = [&](const BinaryBody& body) {
    return function.build_region({scalar_shape, scalar_shape}, true, [&](const Values& arguments) {
      return Values{body(arguments[0], arguments[1])};
    });
  };
  Region* select_region = region(select);
  Region* scatter_region = region(scatter);
  return function
      .append(OpKind::kSelectAndScatter, {operand, source, init},
              {{"window_dimensions", std::move(window_dimensions)},
               {"window_strides", or_ones(std::move(window_strides), rank)},
               {"padding", padding_matrix(padding, rank)}},
              {select_region, scatter_region})
      .result();
}

Values sort(const Values& operands, int64_t dimension, bool is_stable,
            const std::function<Value(const Values&)>& comparator) {
  require(!operands.empty(), "[sort] no operands given");
  Function& function = operands[0].function();
  const int64_t dim = normalize_axis("sort", dimension, operands[0].rank());
  std::vector<Shape> arguments;
  for (const Value operand : operands) {
    arguments.insert(arguments.end(), 2, Shape(operand.dtype(), {}));
  }
  Region* region = function.build_region(
      arguments, true, [&](const Values& values) { return Values{comparator(values)}; });
  return function
      .append(OpKind::kSort, operands, {{"dimension", dim}, {"is_stable", is_stable}}, {region})
      .results;
}

Value argmax(Value x, int axis) {
  Function& function = x.function();
  const int64_t dim = normalize_axis("argmax", axis, x.rank());
  const Value indices = iota(function, Shape(DType::kS32, x.dims()), dim);
  const bool floats = is_float(x.dtype());
  // Independent of the order in which elements meet: a plugin may reduce in any.
  const Body body = [floats](const Values& a) {
    const Value lhs = a[0], rhs = a[2];
    Value better = compare(lhs, rhs, ComparisonDirection::kGt);
    Value equal = compare(lhs, rhs, ComparisonDirection::kEq);
    if (floats) {
      const Value lhs_nan = compare(lhs, lhs, ComparisonDirection::kNe);
      const Value rhs_nan = compare(rhs, rhs, ComparisonDirection::kNe);
      better = or_(better, and_(lhs_nan, not_(rhs_nan)));
      equal = or_(equal, and_(lhs_nan, rhs_nan));
    }
    const Value earlier = compare(a[1], a[3], ComparisonDirection::kLt);
    const Value keep = or_(better, and_(equal, earlier));
    return Values{select(keep, lhs, rhs), select(keep, a[1], a[3])};
  };
  const Value last = highest(function, DType::kS32);  // loses against every real index
  return reduce({x, indices}, {lowest(function, x.dtype()), last}, {dim}, body)[1];
}

std::pair<Value, Value> top_k(Value x, int64_t k) {
  require(x.rank() >= 1 && k >= 0 && k <= x.dim(-1), "[top_k] k = {} of {}", k,
          x.shape().to_string());
  const int64_t last = x.rank() - 1;
  const Value indices = iota(x.function(), Shape(DType::kS32, x.dims()), last);
  const auto falling = [](const Values& a) {
    if (!is_float(a[0].dtype())) return compare(a[0], a[1], ComparisonDirection::kGt);
    return compare(a[0], a[1], ComparisonDirection::kGt, ComparisonType::kTotalOrder);
  };
  const Values sorted = sort({x, indices}, last, true, falling);
  Dims limit = x.dims();
  limit.back() = k;
  const Dims start(limit.size(), 0);
  return {slice(sorted[0], start, limit), slice(sorted[1], start, limit)};
}

Value batch_norm_inference(Value operand, Value scale, Value offset, Value mean, Value variance,
                           double epsilon, int64_t feature_index) {
  return operand.function()
      .append(OpKind::kBatchNormInference, {operand, scale, offset, mean, variance},
              {{"epsilon", epsilon}, {"feature_index", feature_index}})
      .result();
}

}  // namespace ttpu::ir
