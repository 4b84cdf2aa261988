#include "ttpu/nn/weights.h"

#include "ttpu/base/error.h"
#include "ttpu/ir/ir.h"

namespace ttpu::nn {

Shape argument_shape(const WeightDecl& decl) {
  if (decl.encoding == Encoding::kDense) return {decl.dtype, decl.dims};
  Dims dims = decl.dims;
  dims.back() = dims.back() / block_elements(decl.encoding) * block_bytes(decl.encoding);
  return {DType::kU8, dims};
}

ir::Value Context::of_turn(ir::Value value) const {
  if (!loop_) return value;
  const Dims dims(value.dims().begin() + 1, value.dims().end());
  Dims sizes = value.dims();
  sizes[0] = 1;
  ir::Values starts(sizes.size(), ir::scalar_like(loop_->index, 0));
  starts[0] = loop_->index;
  return ir::reshape(ir::dynamic_slice(value, starts, sizes), dims);
}

const Context::Entry& Context::declare(WeightDecl decl) {
  if (loop_) decl = loop_->stacked(decl);
  const auto key = std::pair(decl.names.at(0), decl.row_offset);
  if (const auto found = by_name_.find(key); found != by_name_.end()) {
    require(weights_[found->second.index].dims == decl.dims,
            "[weights] '{}' is declared as {} and as {}", key.first,
            dims_to_string(weights_[found->second.index].dims), dims_to_string(decl.dims));
    return found->second;
  }
  const WeightFormat format = format_of_(decl);
  decl.dtype = format.dtype;
  decl.encoding = format.encoding;
  const ir::Value value =
      function_->add_argument(argument_shape(decl), names_arguments_ ? decl.names[0] : "");
  weights_.push_back(std::move(decl));
  return by_name_.emplace(key, Entry{value, weights_.size() - 1}).first->second;
}

ir::Value Context::tensor(const std::string& name, const Dims& dims, const Axes& axes) {
  WeightDecl decl;
  decl.names = {name};
  decl.dims = dims;
  decl.axes = axes;
  return of_turn(declare(std::move(decl)).value);
}

kernels::WeightOperand Context::matrix(WeightDecl decl) {
  decl.is_matrix = true;
  const Entry& entry = declare(std::move(decl));
  const WeightDecl& stored = weights_[entry.index];
  kernels::WeightOperand operand;
  operand.value = of_turn(entry.value);
  operand.encoding = stored.encoding;
  operand.dims = stored.dims;
  if (loop_) operand.dims.erase(operand.dims.begin());
  return operand;
}

kernels::WeightOperand Context::matrix(const std::string& name, int64_t out, int64_t in,
                                       const Axes& axes) {
  WeightDecl decl;
  decl.names = {name};
  decl.dims = {out, in};
  decl.axes = axes;
  return matrix(std::move(decl));
}

}  // namespace ttpu::nn
