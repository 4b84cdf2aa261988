#include "ttpu/ir/broadcasting.h"

#include <algorithm>

#include "ttpu/base/error.h"
#include "ttpu/ir/constant.h"
#include "ttpu/ir/elementwise.h"
#include "ttpu/ir/infer.h"
#include "ttpu/ir/shape_ops.h"

namespace ttpu::ir {
namespace {

using Binary = Value (*)(Value, Value);

Value broadcast_binary(Binary op, Value lhs, Value rhs) {
  const Dims dims = broadcast_dims(lhs.dims(), rhs.dims());
  return op(broadcast_to(lhs, dims), broadcast_to(rhs, dims));
}

}  // namespace

Dims broadcast_dims(const Dims& lhs, const Dims& rhs) {
  const size_t rank = std::max(lhs.size(), rhs.size());
  Dims dims(rank);
  for (size_t i = 0; i < rank; ++i) {  // from the last
    const int64_t l = i < lhs.size() ? lhs[lhs.size() - 1 - i] : 1;
    const int64_t r = i < rhs.size() ? rhs[rhs.size() - 1 - i] : 1;
    require(l == r || l == 1 || r == 1, "[broadcast] shapes {} and {} do not broadcast",
            dims_to_string(lhs), dims_to_string(rhs));
    dims[rank - 1 - i] = l == 1 ? r : l;
  }
  return dims;
}

Value broadcast_to(Value x, Dims dims) {
  if (x.dims() == dims) return x;
  require(static_cast<size_t>(x.rank()) <= dims.size(), "[broadcast_to] {} to {} loses dimensions",
          x.shape().to_string(), dims_to_string(dims));
  const auto offset = static_cast<int64_t>(dims.size()) - x.rank();
  Dims mapping;
  for (int64_t i = 0; i < x.rank(); ++i) mapping.push_back(i + offset);
  return broadcast_in_dim(x, std::move(dims), std::move(mapping));
}

Value expand_dims(Value x, int axis) {
  Dims dims = x.dims();
  const int64_t at = normalize_axis("expand_dims", axis, x.rank() + 1);
  dims.insert(dims.begin() + at, 1);
  return reshape(x, std::move(dims));
}

Value squeeze(Value x, int axis) {
  Dims dims = x.dims();
  const int64_t at = normalize_axis("squeeze", axis, x.rank());
  require(dims[static_cast<size_t>(at)] == 1, "[squeeze] axis {} of {} is not 1", axis,
          x.shape().to_string());
  dims.erase(dims.begin() + at);
  return reshape(x, std::move(dims));
}

Value scalar_like(Value x, double value) { return scalar(x.function(), x.dtype(), value); }
Value full_like(Value x, double value) { return full(x.function(), x.shape(), value); }

Value operator+(Value lhs, Value rhs) { return broadcast_binary(add, lhs, rhs); }
Value operator-(Value lhs, Value rhs) { return broadcast_binary(subtract, lhs, rhs); }
Value operator*(Value lhs, Value rhs) { return broadcast_binary(multiply, lhs, rhs); }
Value operator/(Value lhs, Value rhs) { return broadcast_binary(divide, lhs, rhs); }
Value operator-(Value x) { return negate(x); }

}  // namespace ttpu::ir
