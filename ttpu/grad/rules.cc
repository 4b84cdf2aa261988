#include "ttpu/grad/rules.h"

#include <numeric>

#include "ttpu/ir/ir.h"

namespace ttpu::grad {

Rule rule_of(ir::OpKind kind) {
  using enum ir::OpKind;
  switch (kind) {
    case kAbs:
    case kCbrt:
    case kCosine:
    case kExponential:
    case kExponentialMinusOne:
    case kLog:
    case kLogPlusOne:
    case kLogistic:
    case kNegate:
    case kRsqrt:
    case kSine:
    case kSqrt:
    case kTan:
    case kTanh:
      return reverse_unary;
    case kAdd:
    case kAtan2:
    case kDivide:
    case kMaximum:
    case kMinimum:
    case kMultiply:
    case kPower:
    case kRemainder:
    case kSubtract:
      return reverse_binary;
    case kCeil:
    case kFloor:
    case kRoundNearestAfz:
    case kRoundNearestEven:
    case kSign:
      return reverse_nothing;
    case kClamp:
      return reverse_clamp;
    case kSelect:
      return reverse_select;
    case kConvert:
      return reverse_convert;
    case kReducePrecision:
      return reverse_reduce_precision;
    case kReshape:
      return reverse_reshape;
    case kTranspose:
      return reverse_transpose;
    case kBroadcastInDim:
      return reverse_broadcast_in_dim;
    case kSlice:
      return reverse_slice;
    case kDynamicSlice:
      return reverse_dynamic_slice;
    case kDynamicUpdateSlice:
      return reverse_dynamic_update_slice;
    case kConcatenate:
      return reverse_concatenate;
    case kPad:
      return reverse_pad;
    case kReverse:
      return reverse_reverse;
    case kDotGeneral:
      return reverse_dot_general;
    case kReduce:
      return reverse_reduce;
    case kSort:
      return reverse_sort;
    case kGather:
      return reverse_gather;
    case kScatter:
      return reverse_scatter;
    case kAllReduce:
      return reverse_all_reduce;
    case kAllGather:
      return reverse_all_gather;
    case kReduceScatter:
      return reverse_reduce_scatter;
    case kAllToAll:
      return reverse_all_to_all;
    case kCollectivePermute:
      return reverse_collective_permute;
    case kOptimizationBarrier:
      return reverse_optimization_barrier;
    case kShardingConstraint:
      return reverse_sharding_constraint;
    default:
      return nullptr;
  }
}

Dims counted(int64_t count, int64_t first) {
  Dims dims(static_cast<size_t>(count));
  std::iota(dims.begin(), dims.end(), first);
  return dims;
}

Dims inverse(const Dims& permutation) {
  Dims back(permutation.size());
  for (size_t i = 0; i < permutation.size(); ++i) {
    back[static_cast<size_t>(permutation[i])] = static_cast<int64_t>(i);
  }
  return back;
}

bool combines_by(const ir::Operation& operation, ir::OpKind kind) {
  const ir::Region& region = *operation.regions.at(0);
  if (region.arguments.size() != 2 || region.operations.size() != 2) return false;
  const ir::Operation& only = *region.operations[0];
  return only.kind == kind && region.yielded() == only.results &&
         (only.operands == region.arguments ||
          only.operands == ir::Values{region.arguments[1], region.arguments[0]});
}

void reverse_optimization_barrier(const Reverse& reverse) {
  for (size_t i = 0; i < reverse.operation().operands.size(); ++i) {
    if (reverse.cotangent(i)) reverse.give(i, [&] { return reverse.cotangent(i); });
  }
}

void reverse_sharding_constraint(const Reverse& reverse) {
  reverse.give(0, [&] {
    return ir::sharding_constraint(reverse.cotangent(),
                                   reverse.attribute<ir::Sharding>("sharding"));
  });
}

}  // namespace ttpu::grad
