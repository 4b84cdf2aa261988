#include "ttpu/ir/linalg.h"

#include "ttpu/ir/function.h"
#include "ttpu/ir/infer.h"

namespace ttpu::ir {
namespace {

void check_square(const OpContext& op, const Shape& a) {
  check(is_float(a.dtype) && a.rank() >= 2 && a.dim(-1) == a.dim(-2), op,
        "{}: a float matrix with as many rows as columns expected", a.to_string());
}

}  // namespace

std::vector<Shape> infer_cholesky(const OpContext& op) {
  check_square(op, op.shape(0));
  return {op.shape(0)};
}

std::vector<Shape> infer_triangular_solve(const OpContext& op) {
  const Shape& a = op.shape(0);
  const Shape& b = op.shape(1);
  check_square(op, a);
  Dims batch_a = a.dims;
  Dims batch_b = b.dims;
  batch_a.resize(batch_a.size() - 2);
  batch_b.resize(batch_b.size() < 2 ? 0 : batch_b.size() - 2);
  const int side = op.attributes.get<bool>("left_side") ? -2 : -1;
  check(
      b.dtype == a.dtype && b.rank() == a.rank() && batch_a == batch_b && b.dim(side) == a.dim(-1),
      op, "a {} and b {} do not match", a.to_string(), b.to_string());
  return {b};
}

Value cholesky(Value x, bool lower) {
  return x.function().append(OpKind::kCholesky, {x}, {{"lower", lower}}).result();
}

Value triangular_solve(Value a, Value b, bool left_side, bool lower, bool unit_diagonal,
                       Transpose transpose_a) {
  return a.function()
      .append(OpKind::kTriangularSolve, {a, b},
              {{"left_side", left_side},
               {"lower", lower},
               {"unit_diagonal", unit_diagonal},
               {"transpose_a", transpose_a}})
      .result();
}

}  // namespace ttpu::ir
