// The rules that infer an operator's results. Internal to ttpu::ir and ttpu::grad: each family's
// source file holds its rules, op_kind.cc the table. A rule throws when the operator is not well
// formed; the builders and Module::verify share it.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "ttpu/base/error.h"
#include "ttpu/ir/operation.h"

namespace ttpu::ir {

// What a rule sees of an operator.
struct OpContext {
  OpKind kind;
  const Values& operands;
  const Attributes& attributes;
  const std::vector<Region*>& regions;
  const std::vector<Shape>& declared;  // result shapes the builder asked for

  std::string_view name() const { return op_short_name(kind); }
  const Shape& shape(size_t index) const { return operands.at(index).shape(); }
  const Shape& declared_shape() const;
};

using InferRule = std::vector<Shape> (*)(const OpContext&);

// Runs the rule of `op.kind` after checking the number of operands and regions.
std::vector<Shape> infer_results(const OpContext& op);

template <typename... Args>
void check(bool condition, const OpContext& op, fmt::format_string<Args...> format,
           Args&&... args) {
  if (condition) return;
  throw Error(Code::kInvalidArgument,
              fmt::format("[{}] {}", op.name(), fmt::format(format, std::forward<Args>(args)...)));
}

std::string shapes_to_string(const Values& values);
std::string shapes_to_string(const std::vector<Shape>& shapes);
std::vector<Shape> shapes_of(const Values& values);
// `dims` are distinct, inside [0, rank), and rising if `sorted`. `what` names them in the message.
void check_dims(const OpContext& op, const Dims& dims, int64_t rank, const char* what,
                bool sorted = false);
bool contains(const Dims& dims, int64_t dim);
// The dimensions of `shape` that are not in `dims`.
Dims remove_dims(const Dims& shape, const Dims& dims);
// Region `index` takes scalars of these shapes and yields those.
void check_region(const OpContext& op, size_t index, const std::vector<Shape>& arguments,
                  const std::vector<Shape>& yields);
// `axis` counted from 0; throws "[op] ..." outside the rank.
int64_t normalize_axis(const char* op, int64_t axis, int64_t rank);
Dims normalize_axes(const char* op, const Dims& axes, int64_t rank);

// The size of a window's output in one dimension (StableHLO's rule for reduce_window and
// convolution).
struct WindowDim {
  int64_t size = 1;
  int64_t stride = 1;
  int64_t low = 0;
  int64_t high = 0;
  int64_t base_dilation = 1;
  int64_t window_dilation = 1;
};
int64_t window_output_size(const OpContext& op, int64_t input, const WindowDim& window);

std::vector<Shape> infer_unary(const OpContext& op);
std::vector<Shape> infer_is_finite(const OpContext& op);
std::vector<Shape> infer_binary(const OpContext& op);
std::vector<Shape> infer_clamp(const OpContext& op);
std::vector<Shape> infer_compare(const OpContext& op);
std::vector<Shape> infer_select(const OpContext& op);
std::vector<Shape> infer_map(const OpContext& op);
std::vector<Shape> infer_convert(const OpContext& op);
std::vector<Shape> infer_bitcast_convert(const OpContext& op);
std::vector<Shape> infer_reduce_precision(const OpContext& op);
std::vector<Shape> infer_constant(const OpContext& op);
std::vector<Shape> infer_iota(const OpContext& op);
std::vector<Shape> infer_reshape(const OpContext& op);
std::vector<Shape> infer_transpose(const OpContext& op);
std::vector<Shape> infer_broadcast_in_dim(const OpContext& op);
std::vector<Shape> infer_slice(const OpContext& op);
std::vector<Shape> infer_dynamic_slice(const OpContext& op);
std::vector<Shape> infer_dynamic_update_slice(const OpContext& op);
std::vector<Shape> infer_concatenate(const OpContext& op);
std::vector<Shape> infer_pad(const OpContext& op);
std::vector<Shape> infer_reverse(const OpContext& op);
std::vector<Shape> infer_dot_general(const OpContext& op);
std::vector<Shape> infer_convolution(const OpContext& op);
std::vector<Shape> infer_reduce(const OpContext& op);
std::vector<Shape> infer_reduce_window(const OpContext& op);
std::vector<Shape> infer_select_and_scatter(const OpContext& op);
std::vector<Shape> infer_sort(const OpContext& op);
std::vector<Shape> infer_batch_norm_inference(const OpContext& op);
std::vector<Shape> infer_gather(const OpContext& op);
std::vector<Shape> infer_scatter(const OpContext& op);
std::vector<Shape> infer_while(const OpContext& op);
std::vector<Shape> infer_if(const OpContext& op);
std::vector<Shape> infer_case(const OpContext& op);
std::vector<Shape> infer_call(const OpContext& op);
std::vector<Shape> infer_return(const OpContext& op);
std::vector<Shape> infer_optimization_barrier(const OpContext& op);
std::vector<Shape> infer_rng_bit_generator(const OpContext& op);
std::vector<Shape> infer_all_reduce(const OpContext& op);
std::vector<Shape> infer_all_gather(const OpContext& op);
std::vector<Shape> infer_reduce_scatter(const OpContext& op);
std::vector<Shape> infer_all_to_all(const OpContext& op);
std::vector<Shape> infer_collective_permute(const OpContext& op);
std::vector<Shape> infer_collective_broadcast(const OpContext& op);
std::vector<Shape> infer_device_id(const OpContext& op);
std::vector<Shape> infer_custom_call(const OpContext& op);
std::vector<Shape> infer_sharding_constraint(const OpContext& op);
std::vector<Shape> infer_manual_computation(const OpContext& op);
std::vector<Shape> infer_cholesky(const OpContext& op);
std::vector<Shape> infer_triangular_solve(const OpContext& op);

}  // namespace ttpu::ir
