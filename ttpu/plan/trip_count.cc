#include "ttpu/plan/trip_count.h"

#include <algorithm>

namespace ttpu::plan {
namespace {

std::optional<int64_t> constant_of(ir::Value value) {
  const ir::Operation* op = value.producer();
  if (op == nullptr || value.shape().num_elements() != 1) return std::nullopt;
  switch (op->kind) {
    case ir::OpKind::kConstant: {
      const auto& literal = op->attributes.get<ir::Literal>("value");
      if (!is_integer(literal.shape().dtype)) return std::nullopt;
      return literal.integer(0);
    }
    case ir::OpKind::kReshape:
    case ir::OpKind::kConvert:
      return constant_of(op->operands[0]);
    default:
      return std::nullopt;
  }
}

// What is added to the argument each turn.
std::optional<int64_t> step_of(ir::Value next, ir::Value argument) {
  const ir::Operation* op = next.producer();
  if (op == nullptr || op->kind != ir::OpKind::kAdd) return std::nullopt;
  if (op->operands[0] == argument) return constant_of(op->operands[1]);
  if (op->operands[1] == argument) return constant_of(op->operands[0]);
  return std::nullopt;
}

}  // namespace

std::optional<int64_t> trip_count(const ir::Operation& loop) {
  const ir::Region& condition = *loop.regions.at(0);
  const ir::Region& body = *loop.regions.at(1);
  const ir::Operation* compare = condition.yielded().at(0).producer();
  if (compare == nullptr || compare->kind != ir::OpKind::kCompare) return std::nullopt;
  const auto counter =
      std::find(condition.arguments.begin(), condition.arguments.end(), compare->operands[0]);
  const auto bound = constant_of(compare->operands[1]);
  if (counter == condition.arguments.end() || !bound) return std::nullopt;
  const auto index = static_cast<size_t>(counter - condition.arguments.begin());
  const auto start = constant_of(loop.operands.at(index));
  const auto step = step_of(body.yielded().at(index), body.arguments.at(index));
  if (!start || !step || *step <= 0) return std::nullopt;
  const auto direction = compare->attributes.get<ir::ComparisonDirection>("comparison_direction");
  if (direction != ir::ComparisonDirection::kLt && direction != ir::ComparisonDirection::kLe) {
    return std::nullopt;
  }
  const int64_t end = *bound + (direction == ir::ComparisonDirection::kLe ? 1 : 0);
  return end <= *start ? 0 : (end - *start + *step - 1) / *step;
}

}  // namespace ttpu::plan
