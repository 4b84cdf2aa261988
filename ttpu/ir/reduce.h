// Reductions, windows and sorting. Bodies see only their arguments (scalars).
#pragma once

#include <functional>
#include <utility>
#include <vector>

#include "ttpu/ir/attribute.h"

namespace ttpu::ir {

using Body = std::function<Values(const Values&)>;
using BinaryBody = std::function<Value(Value, Value)>;

// body: accumulators, then elements, to accumulators.
Values reduce(const Values& operands, const Values& inits, Dims dimensions, const Body& body);
// The usual ones; axes may be negative; the dimensions go away unless kept as 1.
Value reduce_sum(Value x, const Dims& axes, bool keep_dims = false);
Value reduce_max(Value x, const Dims& axes, bool keep_dims = false);
Value reduce_min(Value x, const Dims& axes, bool keep_dims = false);
Value reduce_and(Value x, const Dims& axes, bool keep_dims = false);
Value reduce_or(Value x, const Dims& axes, bool keep_dims = false);

struct WindowOptions {
  Dims strides = {};         // default 1
  Dims base_dilations = {};  // default 1
  Dims window_dilations = {};
  std::vector<std::pair<int64_t, int64_t>> padding =
      {};  // (low, high) of each dimension, default 0
};
Values reduce_window(const Values& operands, const Values& inits, Dims window_dimensions,
                     const WindowOptions& options, const Body& body);

// select: i1 from two elements. scatter: combines.
Value select_and_scatter(Value operand, Value source, Value init, Dims window_dimensions,
                         Dims window_strides,
                         const std::vector<std::pair<int64_t, int64_t>>& padding,
                         const BinaryBody& select, const BinaryBody& scatter);

// comparator: (lhs, rhs) scalars of each operand in turn, to i1.
Values sort(const Values& operands, int64_t dimension, bool is_stable,
            const std::function<Value(const Values&)>& comparator);
// The first index (i32) of the largest element along `axis`, which goes away. NaN counts as
// largest.
Value argmax(Value x, int axis);
// The k largest along the last axis in falling order, and their indices (i32). Equal elements keep
// their order.
std::pair<Value, Value> top_k(Value x, int64_t k);

Value batch_norm_inference(Value operand, Value scale, Value offset, Value mean, Value variance,
                           double epsilon, int64_t feature_index);

}  // namespace ttpu::ir
