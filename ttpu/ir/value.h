// A value of a program: the result of an operator, or an argument of a function or region.
#pragma once

#include <cstdint>
#include <vector>

#include "ttpu/base/shape.h"

namespace ttpu::ir {

class Function;
struct Operation;

// A handle, cheap to copy; valid as long as its Function. Methods of an empty Value throw.
class Value {
 public:
  Value() = default;
  Value(Function* function, int32_t id) : function_(function), id_(id) {}

  explicit operator bool() const { return function_ != nullptr; }
  const Shape& shape() const;
  DType dtype() const { return shape().dtype; }
  const Dims& dims() const { return shape().dims; }
  int64_t dim(int axis) const { return shape().dim(axis); }  // negative counts from the end
  int rank() const { return shape().rank(); }
  Function& function() const;
  int32_t id() const { return id_; }  // dense, from 0, unique in the function
  // Null for an argument of a function or region.
  Operation* producer() const;

  bool operator==(const Value&) const = default;

 private:
  Function* function_ = nullptr;
  int32_t id_ = -1;
};

using Values = std::vector<Value>;

}  // namespace ttpu::ir
