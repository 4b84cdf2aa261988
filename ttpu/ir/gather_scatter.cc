#include "ttpu/ir/gather_scatter.h"

#include "ttpu/ir/function.h"
#include "ttpu/ir/infer.h"

namespace ttpu::ir {
namespace {

// The dimensions of the indices without the one that holds index vectors (which may be implicit).
Dims batch_dims(const OpContext& op, const Shape& indices, int64_t index_vector_dim) {
  check(is_integer(indices.dtype), op, "indices {} are not integers", indices.to_string());
  check(index_vector_dim >= 0 && index_vector_dim <= indices.rank(), op,
        "index_vector_dim {} of indices {}", index_vector_dim, indices.to_string());
  return remove_dims(indices.dims, {index_vector_dim});
}

int64_t index_size(const Shape& indices, int64_t index_vector_dim) {
  return index_vector_dim < indices.rank() ? indices.dims[static_cast<size_t>(index_vector_dim)]
                                           : 1;
}

// What gather and scatter share, under gather's names.
struct Numbers {
  Dims window;     // offset_dims, update_window_dims
  Dims collapsed;  // collapsed_slice_dims, inserted_window_dims
  Dims operand_batching;
  Dims indices_batching;
  Dims index_map;
  int64_t index_vector_dim;
};

void check_numbers(const OpContext& op, const Numbers& n, const Shape& operand,
                   const Shape& indices, int64_t result_rank) {
  check_dims(op, n.window, result_rank, "offset or update window dims", true);
  Dims dropped = n.collapsed;
  dropped.insert(dropped.end(), n.operand_batching.begin(), n.operand_batching.end());
  check_dims(op, dropped, operand.rank(), "collapsed or inserted and batching dims");
  check_dims(op, n.collapsed, operand.rank(), "collapsed or inserted dims", true);
  check_dims(op, n.operand_batching, operand.rank(), "operand batching dims", true);
  check_dims(op, n.indices_batching, indices.rank(), "indices batching dims");
  check_dims(op, n.index_map, operand.rank(), "index map");
  check(static_cast<int64_t>(n.index_map.size()) == index_size(indices, n.index_vector_dim), op,
        "index map {} for index vectors of {} in {}", dims_to_string(n.index_map),
        index_size(indices, n.index_vector_dim), indices.to_string());
  check(n.operand_batching.size() == n.indices_batching.size(), op,
        "operand batching dims {} and indices batching dims {}: not as many",
        dims_to_string(n.operand_batching), dims_to_string(n.indices_batching));
  for (size_t i = 0; i < n.operand_batching.size(); ++i) {
    check(n.indices_batching[i] != n.index_vector_dim, op,
          "the index vector dimension {} is a batching dimension", n.index_vector_dim);
    check(!contains(n.index_map, n.operand_batching[i]), op,
          "dimension {} is both batching and indexed", n.operand_batching[i]);
    check(operand.dims[static_cast<size_t>(n.operand_batching[i])] ==
              indices.dims[static_cast<size_t>(n.indices_batching[i])],
          op, "batching sizes of {} and {} differ", operand.to_string(), indices.to_string());
  }
}

Dims dropped_dims(const Numbers& n) {
  Dims dropped = n.collapsed;
  dropped.insert(dropped.end(), n.operand_batching.begin(), n.operand_batching.end());
  return dropped;
}

// Batch dimensions and window dimensions woven together, windows at the places n.window.
Dims weave(const Dims& batch, const Dims& window, const Dims& window_places) {
  Dims dims;
  size_t next_batch = 0;
  size_t next_window = 0;
  for (size_t i = 0; i < batch.size() + window.size(); ++i) {
    const bool is_window = contains(window_places, static_cast<int64_t>(i));
    dims.push_back(is_window ? window.at(next_window++) : batch.at(next_batch++));
  }
  return dims;
}

}  // namespace

std::vector<Shape> infer_gather(const OpContext& op) {
  const Shape& operand = op.shape(0);
  const Shape& indices = op.shape(1);
  const auto& d = op.attributes.get<GatherDimensionNumbers>("dimension_numbers");
  const auto& sizes = op.attributes.get<Dims>("slice_sizes");
  const Numbers n{d.offset_dims,           d.collapsed_slice_dims,
                  d.operand_batching_dims, d.start_indices_batching_dims,
                  d.start_index_map,       d.index_vector_dim};
  const Dims batch = batch_dims(op, indices, n.index_vector_dim);
  check(sizes.size() == operand.dims.size(), op, "slice_sizes {} of {}", dims_to_string(sizes),
        operand.to_string());
  check_numbers(op, n, operand, indices, static_cast<int64_t>(batch.size() + n.window.size()));
  const Dims dropped = dropped_dims(n);
  for (size_t i = 0; i < sizes.size(); ++i) {
    check(sizes[i] >= 0 && sizes[i] <= operand.dims[i], op, "slice_sizes {} of {}",
          dims_to_string(sizes), operand.to_string());
    check(!contains(dropped, static_cast<int64_t>(i)) || sizes[i] <= 1, op,
          "slice_sizes {}: dimension {} is collapsed or batching, so 1", dims_to_string(sizes), i);
  }
  const Dims window = remove_dims(sizes, dropped);
  check(window.size() == n.window.size(), op, "offset_dims {} for slices of {}",
        dims_to_string(n.window), dims_to_string(window));
  return {Shape(operand.dtype, weave(batch, window, n.window))};
}

std::vector<Shape> infer_scatter(const OpContext& op) {
  check(op.operands.size() >= 3 && op.operands.size() % 2 == 1, op,
        "{} operands given; inputs, indices and as many updates as inputs expected",
        op.operands.size());
  const size_t count = op.operands.size() / 2;
  const Shape& input = op.shape(0);
  const Shape& indices = op.shape(count);
  const auto& d = op.attributes.get<ScatterDimensionNumbers>("scatter_dimension_numbers");
  const Numbers n{d.update_window_dims,           d.inserted_window_dims,
                  d.input_batching_dims,          d.scatter_indices_batching_dims,
                  d.scatter_dims_to_operand_dims, d.index_vector_dim};
  const Dims batch = batch_dims(op, indices, n.index_vector_dim);
  const Shape& update = op.shape(count + 1);
  check_numbers(op, n, input, indices, update.rank());
  const Dims window = remove_dims(input.dims, dropped_dims(n));
  check(window.size() == n.window.size() && update.dims.size() == batch.size() + window.size(), op,
        "updates {} with update_window_dims {} for input {} and indices {}", update.to_string(),
        dims_to_string(n.window), input.to_string(), indices.to_string());
  check(remove_dims(update.dims, n.window) == batch, op,
        "updates {}: the dimensions outside the window must be {}", update.to_string(),
        dims_to_string(batch));
  for (size_t i = 0; i < window.size(); ++i) {
    check(update.dims[static_cast<size_t>(n.window[i])] <= window[i], op,
          "the window of updates {} is larger than the input {}", update.to_string(),
          input.to_string());
  }
  std::vector<Shape> scalars;
  for (size_t i = 0; i < count; ++i) {
    check(op.shape(i).dims == input.dims && op.shape(count + 1 + i).dims == update.dims &&
              op.shape(i).dtype == op.shape(count + 1 + i).dtype,
          op, "inputs and updates do not match: {}", shapes_to_string(op.operands));
    scalars.emplace_back(op.shape(i).dtype, Dims{});
  }
  std::vector<Shape> arguments = scalars;
  arguments.insert(arguments.end(), scalars.begin(), scalars.end());
  check_region(op, 0, arguments, scalars);
  return shapes_of(Values(op.operands.begin(), op.operands.begin() + static_cast<int64_t>(count)));
}

Value gather(Value operand, Value start_indices, GatherDimensionNumbers dims, Dims slice_sizes,
             bool indices_are_sorted) {
  return operand.function()
      .append(OpKind::kGather, {operand, start_indices},
              {{"dimension_numbers", std::move(dims)},
               {"slice_sizes", std::move(slice_sizes)},
               {"indices_are_sorted", indices_are_sorted}})
      .result();
}

Values scatter(const Values& inputs, Value scatter_indices, const Values& updates,
               ScatterDimensionNumbers dims, const Body& update, bool indices_are_sorted,
               bool unique_indices) {
  require(!inputs.empty() && inputs.size() == updates.size(),
          "[scatter] {} inputs and {} updates; as many of each expected", inputs.size(),
          updates.size());
  Function& function = inputs[0].function();
  std::vector<Shape> scalars;
  for (const Value value : inputs) scalars.emplace_back(value.dtype(), Dims{});
  for (const Value value : updates) scalars.emplace_back(value.dtype(), Dims{});
  Region* region = function.build_region(scalars, true, update);
  Values operands = inputs;
  operands.push_back(scatter_indices);
  operands.insert(operands.end(), updates.begin(), updates.end());
  return function
      .append(OpKind::kScatter, std::move(operands),
              {{"scatter_dimension_numbers", std::move(dims)},
               {"indices_are_sorted", indices_are_sorted},
               {"unique_indices", unique_indices}},
              {region})
      .results;
}

Value take(Value x, Value indices, int axis) {
  const int64_t at = normalize_axis("take", axis, x.rank());
  GatherDimensionNumbers dims;
  dims.collapsed_slice_dims = {at};
  dims.start_index_map = {at};
  dims.index_vector_dim = indices.rank();  // each index is a vector of one
  for (int64_t i = 0; i < x.rank() - 1; ++i) {
    dims.offset_dims.push_back(i < at ? i : i + indices.rank());
  }
  Dims sizes = x.dims();
  sizes[static_cast<size_t>(at)] = 1;
  return gather(x, indices, std::move(dims), std::move(sizes));
}

}  // namespace ttpu::ir
