#include "ttpu/kernels/linear/expert_order.h"

#include <fmt/format.h>

#include "ttpu/ir/ir.h"
#include "ttpu/ir/module.h"

namespace ttpu::kernels {
namespace {

using enum ir::ComparisonDirection;
using ir::Value;

ir::Values sorted_by(Value keys, Value values) {
  return ir::sort({keys, values}, 0, true,
                  [](const ir::Values& v) { return ir::compare(v[0], v[1], kLt); });
}

// Rows where the mask [rows] is false become zeros.
Value masked(Value mask, Value rows) {
  return ir::select(ir::broadcast_in_dim(mask, rows.dims(), {0}), rows, ir::full_like(rows, 0));
}

Value put(const ir::Values& v) {
  if (v[0].dim(0) == v[2].dim(0)) return ir::take(v[0], v[1], 0);
  const Value count = ir::full_like(v[1], static_cast<double>(v[0].dim(0)));
  return ir::take(v[0], ir::remainder(v[1], count), 0);
}

Value put_back(const ir::Values& v) { return masked(v[3], ir::take(v[0], v[2], 0)); }

// The sum of the rows that are of the same one of `count`.
Value taken_by_rows(Value given, const RowPlaces& rows, int64_t count) {
  const Value of_rows = masked(rows.known, ir::take(given, rows.places, 0));
  const int64_t times = of_rows.dim(0) / count;
  if (times == 1) return of_rows;
  const Value apart = ir::reshape(of_rows, {times, count, of_rows.dim(1)});
  return ir::convert(ir::reduce_sum(ir::convert(apart, DType::kF32), {0}), given.dtype());
}

// A place without a row has any row's number, but is not where that row is.
Value taken_by_places(Value given, const RowPlaces& rows, int64_t) {
  const Value numbers = ir::iota(given.function(), rows.sources.shape(), 0);
  const Value has_row = ir::compare(ir::take(rows.places, rows.sources, 0), numbers, kEq);
  return masked(has_row, ir::take(masked(rows.known, given), rows.sources, 0));
}

// `move` of (x, sources, places, known), and `back` of its cotangent and the last three.
Value call_with_gradient(const char* name, Value x, const RowPlaces& rows,
                         Value (*move)(const ir::Values&),
                         Value (*back)(Value cotangent, const RowPlaces& rows, int64_t count)) {
  ir::Module& module = x.function().module();
  const ir::Values operands = {x, rows.sources, rows.places, rows.known};
  const std::string full_name =
      fmt::format("{}_{}x{}_{}_{}_{}", name, x.dim(0), x.dim(1), rows.places.dim(0),
                  rows.sources.dim(0), dtype_name(x.dtype()));
  if (const ir::Function* known = module.find_function(full_name)) {
    return ir::call(*known, operands)[0];
  }
  ir::Function& function = module.add_function(full_name);
  ir::Values arguments;
  for (const Value operand : operands) arguments.push_back(function.add_argument(operand.shape()));
  const auto forward = [move](const ir::Values& v) -> ir::Values { return {move(v)}; };
  function.set_results(forward(arguments));
  function.set_gradient(
      {forward,
       [back](const ir::Values& v, const ir::Values&, const ir::Values& cotangents) -> ir::Values {
         return {back(cotangents[0], {v[1], v[2], v[3]}, v[0].dim(0)), {}, {}, {}};
       }});
  return ir::call(function, operands)[0];
}

}  // namespace

Value one_hot(Value ids, int64_t experts) {
  const Dims dims = {ids.dim(0), experts};
  const Value numbers = ir::iota(ids.function(), Shape(ids.dtype(), dims), 1);
  return ir::compare(ir::broadcast_in_dim(ids, dims, {0}), numbers, kEq);
}

SortedRows sorted_rows(Value ids, int64_t experts, bool sorted) {
  const Value none = ir::full_like(ids, static_cast<double>(experts));
  const Value keys = ir::select(has_expert(ids, experts), ids, none);
  const Value counts = ir::reduce_sum(ir::convert(one_hot(ids, experts), DType::kS32), {0});
  if (sorted) return {{}, keys, counts};
  const ir::Values both = sorted_by(keys, ir::iota(ids.function(), ids.shape(), 0));
  return {both[1], both[0], counts};
}

Value unsorted(const SortedRows& rows, Value x) {
  return rows.order ? sorted_by(rows.order, x)[1] : x;
}

Value has_expert(Value ids, int64_t experts) {
  return ir::and_(ir::compare(ids, 0, kGe), ir::compare(ids, static_cast<double>(experts), kLt));
}

Value sums_before(Value x) {
  const Dims dims = {x.dim(0), x.dim(0)};
  const auto numbers = [&](int64_t axis) {
    return ir::iota(x.function(), Shape(DType::kS32, dims), axis);
  };
  const Value before = ir::compare(numbers(1), numbers(0), kLt);
  const Value all = ir::broadcast_in_dim(x, dims, {1});
  return ir::reduce_sum(ir::select(before, all, ir::full_like(all, 0)), {1});
}

Value ranges_of(Value ends, int64_t count) {
  ir::Function& function = ends.function();
  const Dims both = {count, ends.dim(0)};
  const Value ended = ir::compare(ir::broadcast_in_dim(ends, both, {1}),
                                  ir::iota(function, Shape(DType::kS32, both), 0), kLe);
  const Value number = ir::reduce_sum(ir::convert(ended, DType::kS32), {1});
  return ir::minimum(number, ir::full_like(number, static_cast<double>(ends.dim(0) - 1)));
}

Value at_places(Value x, const RowPlaces& rows) {
  if (!rows.sources) return x;
  return call_with_gradient("rows_at_places", x, rows, put, taken_by_rows);
}

Value from_places(Value y, const RowPlaces& rows) {
  if (!rows.sources) return masked(rows.known, y);
  return call_with_gradient("rows_from_places", y, rows, put_back, taken_by_places);
}

}  // namespace ttpu::kernels
