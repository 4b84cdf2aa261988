#include "ttpu/ir/shape_ops.h"

#include "ttpu/ir/broadcasting.h"
#include "ttpu/ir/function.h"
#include "ttpu/ir/infer.h"

namespace ttpu::ir {
namespace {

void check_rank(const OpContext& op, const Dims& entries, const char* what, int rank) {
  check(entries.size() == static_cast<size_t>(rank), op, "{} {} for {} dimensions", what,
        dims_to_string(entries), rank);
}

void check_starts(const OpContext& op, size_t first, int rank) {
  check(op.operands.size() == first + static_cast<size_t>(rank), op,
        "{} start indices for {} dimensions", op.operands.size() - first, rank);
  for (size_t i = first; i < op.operands.size(); ++i) {
    check(is_integer(op.shape(i).dtype) && op.shape(i).rank() == 0, op,
          "start index {} is {}, an integer scalar expected", i - first, op.shape(i).to_string());
    check(op.shape(i) == op.shape(first), op, "start indices of different types: {} and {}",
          op.shape(first).to_string(), op.shape(i).to_string());
  }
}

}  // namespace

std::vector<Shape> infer_reshape(const OpContext& op) {
  const Shape& from = op.shape(0);
  const Shape& to = op.declared_shape();
  check(from.dtype == to.dtype && from.num_elements() == to.num_elements(), op,
        "{} to {}: {} and {} elements", from.to_string(), to.to_string(), from.num_elements(),
        to.num_elements());
  return {to};
}

std::vector<Shape> infer_transpose(const OpContext& op) {
  const Shape& x = op.shape(0);
  const auto& permutation = op.attributes.get<Dims>("permutation");
  check_rank(op, permutation, "permutation", x.rank());
  check_dims(op, permutation, x.rank(), "permutation");
  Dims dims;
  for (const int64_t axis : permutation) dims.push_back(x.dims[static_cast<size_t>(axis)]);
  return {Shape(x.dtype, dims)};
}

std::vector<Shape> infer_broadcast_in_dim(const OpContext& op) {
  const Shape& x = op.shape(0);
  const Shape& result = op.declared_shape();
  const auto& dims = op.attributes.get<Dims>("broadcast_dimensions");
  check(x.dtype == result.dtype, op, "{} to {} changes the element type", x.to_string(),
        result.to_string());
  check_rank(op, dims, "broadcast_dimensions", x.rank());
  check_dims(op, dims, result.rank(), "broadcast_dimensions");
  for (size_t i = 0; i < dims.size(); ++i) {
    const int64_t to = result.dims[static_cast<size_t>(dims[i])];
    check(x.dims[i] == 1 || x.dims[i] == to, op,
          "{} to {} with broadcast_dimensions {}: dimension {} of size {} cannot become {}",
          x.to_string(), result.to_string(), dims_to_string(dims), i, x.dims[i], to);
  }
  return {result};
}

std::vector<Shape> infer_slice(const OpContext& op) {
  const Shape& x = op.shape(0);
  const auto& start = op.attributes.get<Dims>("start_indices");
  const auto& limit = op.attributes.get<Dims>("limit_indices");
  const auto& strides = op.attributes.get<Dims>("strides");
  check_rank(op, start, "start", x.rank());
  check_rank(op, limit, "limit", x.rank());
  check_rank(op, strides, "strides", x.rank());
  Dims dims;
  for (size_t i = 0; i < start.size(); ++i) {
    check(0 <= start[i] && start[i] <= limit[i] && limit[i] <= x.dims[i] && strides[i] > 0, op,
          "[{}:{}:{}] of dimension {} of {}", start[i], limit[i], strides[i], i, x.to_string());
    dims.push_back((limit[i] - start[i] + strides[i] - 1) / strides[i]);
  }
  return {Shape(x.dtype, dims)};
}

std::vector<Shape> infer_dynamic_slice(const OpContext& op) {
  check(!op.operands.empty(), op, "no operand given");
  const Shape& x = op.shape(0);
  const auto& sizes = op.attributes.get<Dims>("slice_sizes");
  check_rank(op, sizes, "sizes", x.rank());
  check_starts(op, 1, x.rank());
  for (size_t i = 0; i < sizes.size(); ++i) {
    check(sizes[i] >= 0 && sizes[i] <= x.dims[i], op, "sizes {} of {}", dims_to_string(sizes),
          x.to_string());
  }
  return {Shape(x.dtype, sizes)};
}

std::vector<Shape> infer_dynamic_update_slice(const OpContext& op) {
  check(op.operands.size() >= 2, op, "operand and update expected");
  const Shape& x = op.shape(0);
  const Shape& update = op.shape(1);
  check(x.dtype == update.dtype && x.rank() == update.rank(), op,
        "update {} of {}: element types and number of dimensions must be equal", update.to_string(),
        x.to_string());
  for (size_t i = 0; i < x.dims.size(); ++i) {
    check(update.dims[i] <= x.dims[i], op, "update {} is larger than {}", update.to_string(),
          x.to_string());
  }
  check_starts(op, 2, x.rank());
  return {x};
}

std::vector<Shape> infer_concatenate(const OpContext& op) {
  check(!op.operands.empty(), op, "no values given");
  Shape result = op.shape(0);
  const auto dim = op.attributes.get<int64_t>("dimension");
  check(dim >= 0 && dim < result.rank(), op, "axis {} of {}", dim, result.to_string());
  const auto axis = static_cast<size_t>(dim);
  result.dims[axis] = 0;
  for (size_t i = 0; i < op.operands.size(); ++i) {
    Shape shape = op.shape(i);
    const bool same_rank = shape.rank() == result.rank();
    const int64_t size = same_rank ? shape.dims[axis] : 0;
    if (same_rank) shape.dims[axis] = result.dims[axis];
    check(shape == result, op, "shapes differ outside axis {}: {}", dim,
          shapes_to_string(op.operands));
    result.dims[axis] += size;
  }
  return {result};
}

std::vector<Shape> infer_pad(const OpContext& op) {
  const Shape& x = op.shape(0);
  check(op.shape(1) == Shape(x.dtype, {}), op,
        "padding value {} for {}; a scalar of its type "
        "expected",
        op.shape(1).to_string(), x.to_string());
  const auto& low = op.attributes.get<Dims>("edge_padding_low");
  const auto& high = op.attributes.get<Dims>("edge_padding_high");
  const auto& interior = op.attributes.get<Dims>("interior_padding");
  check_rank(op, low, "low", x.rank());
  check_rank(op, high, "high", x.rank());
  check_rank(op, interior, "interior", x.rank());
  Dims dims;
  for (size_t i = 0; i < low.size(); ++i) {
    check(interior[i] >= 0, op, "interior padding {} is negative", dims_to_string(interior));
    const int64_t inner = x.dims[i] + std::max<int64_t>(x.dims[i] - 1, 0) * interior[i];
    dims.push_back(low[i] + inner + high[i]);
    check(dims.back() >= 0, op, "low {} and high {} crop more than {} has", dims_to_string(low),
          dims_to_string(high), x.to_string());
  }
  return {Shape(x.dtype, dims)};
}

std::vector<Shape> infer_reverse(const OpContext& op) {
  check_dims(op, op.attributes.get<Dims>("dimensions"), op.shape(0).rank(), "dimensions");
  return {op.shape(0)};
}

Value reshape(Value x, Dims dims) {
  if (x.dims() == dims) return x;
  return x.function()
      .append(OpKind::kReshape, {x}, {}, {}, {Shape(x.dtype(), std::move(dims))})
      .result();
}

Value transpose(Value x, Dims permutation) {
  return x.function()
      .append(OpKind::kTranspose, {x}, {{"permutation", std::move(permutation)}})
      .result();
}

Value broadcast_in_dim(Value x, Dims dims, Dims broadcast_dimensions) {
  return x.function()
      .append(OpKind::kBroadcastInDim, {x},
              {{"broadcast_dimensions", std::move(broadcast_dimensions)}}, {},
              {Shape(x.dtype(), std::move(dims))})
      .result();
}

Value slice(Value x, Dims start, Dims limit, Dims strides) {
  if (strides.empty()) strides.assign(start.size(), 1);
  return x.function()
      .append(OpKind::kSlice, {x},
              {{"start_indices", std::move(start)},
               {"limit_indices", std::move(limit)},
               {"strides", std::move(strides)}})
      .result();
}

Value dynamic_slice(Value x, const Values& starts, Dims sizes) {
  Values operands{x};
  operands.insert(operands.end(), starts.begin(), starts.end());
  return x.function()
      .append(OpKind::kDynamicSlice, std::move(operands), {{"slice_sizes", std::move(sizes)}})
      .result();
}

Value dynamic_update_slice(Value x, Value update, const Values& starts) {
  Values operands{x, update};
  operands.insert(operands.end(), starts.begin(), starts.end());
  return x.function().append(OpKind::kDynamicUpdateSlice, std::move(operands)).result();
}

Value slice_in_dim(Value x, int64_t axis, int64_t begin, int64_t end) {
  const auto dim = static_cast<size_t>(normalize_axis("slice_in_dim", axis, x.rank()));
  Dims start(x.dims().size(), 0);
  Dims limit = x.dims();
  start[dim] = begin;
  limit[dim] = end;
  return slice(x, std::move(start), std::move(limit));
}

namespace {

// Of the first dimension from `index` on, and all of the others.
Values starts_at(Value index, int rank) {
  Values starts(static_cast<size_t>(rank), scalar_like(index, 0));
  starts[0] = index;
  return starts;
}

}  // namespace

Value dynamic_index(Value x, Value index) {
  Dims sizes = x.dims();
  sizes.at(0) = 1;
  const Value one = dynamic_slice(x, starts_at(index, x.rank()), sizes);
  return reshape(one, Dims(sizes.begin() + 1, sizes.end()));
}

Value dynamic_update_index(Value x, Value update, Value index) {
  return dynamic_update_slice(x, expand_dims(update, 0), starts_at(index, x.rank()));
}

Value concatenate(const Values& values, int64_t axis) {
  require(!values.empty(), "[concatenate] no values given");
  const int64_t dim = normalize_axis("concatenate", axis, values[0].rank());
  return values[0].function().append(OpKind::kConcatenate, values, {{"dimension", dim}}).result();
}

Value pad(Value x, Value padding_value, Dims low, Dims high, Dims interior) {
  if (interior.empty()) interior.assign(low.size(), 0);
  return x.function()
      .append(OpKind::kPad, {x, padding_value},
              {{"edge_padding_low", std::move(low)},
               {"edge_padding_high", std::move(high)},
               {"interior_padding", std::move(interior)}})
      .result();
}

Value reverse(Value x, Dims dims) {
  return x.function().append(OpKind::kReverse, {x}, {{"dimensions", std::move(dims)}}).result();
}

}  // namespace ttpu::ir
