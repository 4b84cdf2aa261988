// Several products of the same rows, each row with the weights of its own expert: the experts' part
// of an MLP.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "ttpu/kernels/linear/linear.h"

namespace ttpu::kernels {

struct ExpertProduct {
  WeightOperand weight;           // [experts, out, in]
  std::optional<ir::Value> bias;  // [experts, out]
};

// Rows in the order in which such products take them, which is made once. With the Mosaic kernel
// they are sorted by expert; in StableHLO many rows are put into blocks of one expert's, and few
// stay as they are (see expert_linear()), as do those of the CPU kernel.
class ExpertRows {
 public:
  // ids: [rows] i32; one outside [0, experts) is of no expert. dtype: of the rows. `products`: all
  // those that are asked of linear(). sorted: the ids do not fall, but for those that are of no
  // expert, which stand last; else they may be in any order. Throws kInvalidArgument where they do
  // not fit.
  ExpertRows(const Target& target, ir::Value ids, DType dtype,
             const std::vector<ExpertProduct>& products, bool sorted = false);

  // x in that order, [places, n]. Where there are several times as many ids as rows of x [count,
  // n], id i is of row i % count.
  ir::Value ordered(ir::Value x) const;
  // y[r] = x[r] · W[id of r]ᵀ (+ bias), of the dtype of x; both in that order. Any numbers where a
  // place has no row with an expert.
  ir::Value linear(ir::Value x, const ExpertProduct& product) const;
  // [rows, n] in the order of the ids; zeros where there is no expert.
  ir::Value restored(ir::Value y) const;

  class Form;

 private:
  int64_t rows_;
  std::shared_ptr<const Form> form_;
};

}  // namespace ttpu::kernels
