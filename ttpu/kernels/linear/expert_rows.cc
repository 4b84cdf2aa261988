#include "ttpu/kernels/linear/expert_rows.h"

#include <algorithm>

#include "ttpu/base/error.h"
#include "ttpu/ir/ir.h"
#include "ttpu/kernels/linear/expert_blocks.h"
#include "ttpu/kernels/linear/expert_order.h"
#include "ttpu/kernels/linear/tpu.h"

namespace ttpu::kernels {

using ir::Value;

class ExpertRows::Form {
 public:
  virtual ~Form() = default;
  virtual Value ordered(Value x) const = 0;
  virtual Value linear(Value x, const ExpertProduct& product) const = 0;
  virtual Value restored(Value y) const = 0;
};

namespace {

// As they are given.
class GivenRows : public ExpertRows::Form {
 public:
  GivenRows(Target target, Value ids) : target_(std::move(target)), ids_(ids) {}
  Value ordered(Value x) const override {
    const int64_t times = ids_.dim(0) / x.dim(0);
    if (times == 1) return x;
    const Value all = ir::broadcast_in_dim(x, {times, x.dim(0), x.dim(1)}, {1, 2});
    return ir::reshape(all, {ids_.dim(0), x.dim(1)});
  }
  Value linear(Value x, const ExpertProduct& product) const override {
    return expert_linear(target_, x, ids_, product.weight, product.bias);
  }
  Value restored(Value y) const override { return y; }

 private:
  Target target_;
  Value ids_;
};

class RowsInBlocks : public ExpertRows::Form {
 public:
  RowsInBlocks(Target target, Value ids, int64_t experts, bool sorted)
      : target_(std::move(target)), blocks_(reference::expert_blocks(ids, experts, sorted)) {}
  Value ordered(Value x) const override { return at_places(x, blocks_.rows); }
  Value linear(Value x, const ExpertProduct& product) const override {
    return reference::linear_of_blocks(target_, x, blocks_.experts, product.weight, product.bias);
  }
  Value restored(Value y) const override { return from_places(y, blocks_.rows); }

 private:
  Target target_;
  reference::ExpertBlocks blocks_;
};

// For the Mosaic kernel.
class SortedForKernel : public ExpertRows::Form {
 public:
  SortedForKernel(std::shared_ptr<TpuKernels> kernels, Value ids, int64_t experts, bool sorted)
      : kernels_(std::move(kernels)), sorted_(sorted_for_tpu(ids, experts, sorted)) {}
  Value ordered(Value x) const override { return at_places(x, sorted_.rows); }
  Value linear(Value x, const ExpertProduct& product) const override {
    const std::optional<Value> y =
        tpu_expert_linear(*kernels_, x, sorted_, product.weight, product.bias);
    require(y.has_value(), "[expert_linear] there is no kernel for a weight {} that was not named",
            dims_to_string(product.weight.dims));
    return *y;
  }
  Value restored(Value y) const override { return from_places(y, sorted_.rows); }

 private:
  std::shared_ptr<TpuKernels> kernels_;
  TpuSortedRows sorted_;
};

}  // namespace

ExpertRows::ExpertRows(const Target& target, Value ids, DType dtype,
                       const std::vector<ExpertProduct>& products, bool sorted)
    : rows_(ids.dim(0)) {
  require(!products.empty() && ids.rank() == 1 && ids.dtype() == DType::kS32,
          "[expert_linear] expert ids {} of {} products; expected [rows] of i32 and some",
          ids.shape().to_string(), products.size());
  const int64_t experts = products[0].weight.dims.at(0);
  const auto has_kernel = [&](const ExpertProduct& product) {
    return has_tpu_expert_linear(*target.tpu, ids, dtype, product.weight, product.bias);
  };
  if (target.tpu && std::ranges::all_of(products, has_kernel)) {
    form_ = std::make_shared<SortedForKernel>(target.tpu, ids, experts, sorted);
  } else if (!target.cpu_kernels() && reference::takes_blocks(ids.dim(0))) {
    form_ = std::make_shared<RowsInBlocks>(target, ids, experts, sorted);
  } else {
    form_ = std::make_shared<GivenRows>(target, ids);
  }
}

Value ExpertRows::ordered(Value x) const {
  require(x.rank() == 2 && x.dim(0) > 0 && rows_ % x.dim(0) == 0,
          "[expert_linear] rows {} for {} expert ids; expected [rows, n], and a multiple of ids",
          x.shape().to_string(), rows_);
  return form_->ordered(x);
}

Value ExpertRows::linear(Value x, const ExpertProduct& product) const {
  return form_->linear(x, product);
}

Value ExpertRows::restored(Value y) const { return form_->restored(y); }

}  // namespace ttpu::kernels
