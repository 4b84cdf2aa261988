#include "ttpu/train/loss.h"

#include <limits>

#include "ttpu/ir/ir.h"
#include "ttpu/parallel/collectives.h"

namespace ttpu::train {

using ir::ComparisonDirection;
using ir::Value;

Value is_counted(Value targets) { return ir::compare(targets, 0, ComparisonDirection::kGe); }

CrossEntropy cross_entropy(const parallel::Layout& layout, int64_t vocab, Value own, Value targets,
                           Value scale) {
  const parallel::Mesh& mesh = layout.mesh();
  const parallel::Division parts = layout.division("vocab");
  const Value first =
      parallel::part_index(own.function(), mesh, parts) * static_cast<double>(own.dim(1));
  const Value ids = ir::iota(own.function(), Shape(DType::kS32, own.dims()), 1) +
                    ir::broadcast_to(first, own.dims());
  Value logits = own;
  if (own.dim(1) * parts.parts > vocab) {
    const Value known = ir::compare(ids, static_cast<double>(vocab), ComparisonDirection::kLt);
    logits = ir::select(known, own, ir::full_like(own, -std::numeric_limits<double>::infinity()));
  }
  const auto of_rows = [&](Value rows) { return ir::broadcast_in_dim(rows, own.dims(), {0}); };
  const Value top = parallel::maximum(ir::reduce_max(logits, {1}), mesh, parts);
  const Value shifted = logits - of_rows(top);
  const Value weights = ir::exponential(shifted);
  const Value sum = parallel::sum(ir::reduce_sum(weights, {1}), mesh, parts);
  const Value hit = ir::compare(ids, of_rows(targets), ComparisonDirection::kEq);
  const Value chosen = parallel::sum(
      ir::reduce_sum(ir::select(hit, shifted, ir::full_like(own, 0)), {1}), mesh, parts);
  const Value counted = is_counted(targets);
  const Value losses = ir::log(sum) - chosen;
  CrossEntropy result;
  result.loss = ir::reduce_sum(ir::select(counted, losses, ir::full_like(losses, 0)), {0});
  const Value factor =
      ir::select(counted, ir::broadcast_to(scale, losses.dims()), ir::full_like(losses, 0));
  result.cotangent = (weights / of_rows(sum) - ir::convert(hit, DType::kF32)) * of_rows(factor);
  return result;
}

}  // namespace ttpu::train
