#include "ttpu/ir/op_kind.h"

#include <array>

#include "ttpu/ir/infer.h"

namespace ttpu::ir {
namespace {

constexpr int kAny = -1;

struct OpInfo {
  OpKind kind;
  Family family;
  const char* name;
  int operands;  // kAny: the rule checks
  int regions;
  InferRule rule;
};

using F = Family;
using K = OpKind;

constexpr std::array kTable = {
    OpInfo{K::kAbs, F::kElementwise, "stablehlo.abs", 1, 0, infer_unary},
    OpInfo{K::kCbrt, F::kElementwise, "stablehlo.cbrt", 1, 0, infer_unary},
    OpInfo{K::kCeil, F::kElementwise, "stablehlo.ceil", 1, 0, infer_unary},
    OpInfo{K::kCosine, F::kElementwise, "stablehlo.cosine", 1, 0, infer_unary},
    OpInfo{K::kCountLeadingZeros, F::kElementwise, "stablehlo.count_leading_zeros", 1, 0,
           infer_unary},
    OpInfo{K::kExponential, F::kElementwise, "stablehlo.exponential", 1, 0, infer_unary},
    OpInfo{K::kExponentialMinusOne, F::kElementwise, "stablehlo.exponential_minus_one", 1, 0,
           infer_unary},
    OpInfo{K::kFloor, F::kElementwise, "stablehlo.floor", 1, 0, infer_unary},
    OpInfo{K::kIsFinite, F::kElementwise, "stablehlo.is_finite", 1, 0, infer_is_finite},
    OpInfo{K::kLog, F::kElementwise, "stablehlo.log", 1, 0, infer_unary},
    OpInfo{K::kLogPlusOne, F::kElementwise, "stablehlo.log_plus_one", 1, 0, infer_unary},
    OpInfo{K::kLogistic, F::kElementwise, "stablehlo.logistic", 1, 0, infer_unary},
    OpInfo{K::kNegate, F::kElementwise, "stablehlo.negate", 1, 0, infer_unary},
    OpInfo{K::kNot, F::kElementwise, "stablehlo.not", 1, 0, infer_unary},
    OpInfo{K::kPopcnt, F::kElementwise, "stablehlo.popcnt", 1, 0, infer_unary},
    OpInfo{K::kRoundNearestAfz, F::kElementwise, "stablehlo.round_nearest_afz", 1, 0, infer_unary},
    OpInfo{K::kRoundNearestEven, F::kElementwise, "stablehlo.round_nearest_even", 1, 0,
           infer_unary},
    OpInfo{K::kRsqrt, F::kElementwise, "stablehlo.rsqrt", 1, 0, infer_unary},
    OpInfo{K::kSign, F::kElementwise, "stablehlo.sign", 1, 0, infer_unary},
    OpInfo{K::kSine, F::kElementwise, "stablehlo.sine", 1, 0, infer_unary},
    OpInfo{K::kSqrt, F::kElementwise, "stablehlo.sqrt", 1, 0, infer_unary},
    OpInfo{K::kTan, F::kElementwise, "stablehlo.tan", 1, 0, infer_unary},
    OpInfo{K::kTanh, F::kElementwise, "stablehlo.tanh", 1, 0, infer_unary},
    OpInfo{K::kAdd, F::kElementwise, "stablehlo.add", 2, 0, infer_binary},
    OpInfo{K::kAnd, F::kElementwise, "stablehlo.and", 2, 0, infer_binary},
    OpInfo{K::kAtan2, F::kElementwise, "stablehlo.atan2", 2, 0, infer_binary},
    OpInfo{K::kDivide, F::kElementwise, "stablehlo.divide", 2, 0, infer_binary},
    OpInfo{K::kMaximum, F::kElementwise, "stablehlo.maximum", 2, 0, infer_binary},
    OpInfo{K::kMinimum, F::kElementwise, "stablehlo.minimum", 2, 0, infer_binary},
    OpInfo{K::kMultiply, F::kElementwise, "stablehlo.multiply", 2, 0, infer_binary},
    OpInfo{K::kOr, F::kElementwise, "stablehlo.or", 2, 0, infer_binary},
    OpInfo{K::kPower, F::kElementwise, "stablehlo.power", 2, 0, infer_binary},
    OpInfo{K::kRemainder, F::kElementwise, "stablehlo.remainder", 2, 0, infer_binary},
    OpInfo{K::kShiftLeft, F::kElementwise, "stablehlo.shift_left", 2, 0, infer_binary},
    OpInfo{K::kShiftRightArithmetic, F::kElementwise, "stablehlo.shift_right_arithmetic", 2, 0,
           infer_binary},
    OpInfo{K::kShiftRightLogical, F::kElementwise, "stablehlo.shift_right_logical", 2, 0,
           infer_binary},
    OpInfo{K::kSubtract, F::kElementwise, "stablehlo.subtract", 2, 0, infer_binary},
    OpInfo{K::kXor, F::kElementwise, "stablehlo.xor", 2, 0, infer_binary},
    OpInfo{K::kClamp, F::kElementwise, "stablehlo.clamp", 3, 0, infer_clamp},
    OpInfo{K::kCompare, F::kElementwise, "stablehlo.compare", 2, 0, infer_compare},
    OpInfo{K::kSelect, F::kElementwise, "stablehlo.select", 3, 0, infer_select},
    OpInfo{K::kMap, F::kElementwise, "stablehlo.map", kAny, 1, infer_map},
    OpInfo{K::kConvert, F::kConvert, "stablehlo.convert", 1, 0, infer_convert},
    OpInfo{K::kBitcastConvert, F::kConvert, "stablehlo.bitcast_convert", 1, 0,
           infer_bitcast_convert},
    OpInfo{K::kReducePrecision, F::kConvert, "stablehlo.reduce_precision", 1, 0,
           infer_reduce_precision},
    OpInfo{K::kConstant, F::kConstant, "stablehlo.constant", 0, 0, infer_constant},
    OpInfo{K::kIota, F::kConstant, "stablehlo.iota", 0, 0, infer_iota},
    OpInfo{K::kReshape, F::kShape, "stablehlo.reshape", 1, 0, infer_reshape},
    OpInfo{K::kTranspose, F::kShape, "stablehlo.transpose", 1, 0, infer_transpose},
    OpInfo{K::kBroadcastInDim, F::kShape, "stablehlo.broadcast_in_dim", 1, 0,
           infer_broadcast_in_dim},
    OpInfo{K::kSlice, F::kShape, "stablehlo.slice", 1, 0, infer_slice},
    OpInfo{K::kDynamicSlice, F::kShape, "stablehlo.dynamic_slice", kAny, 0, infer_dynamic_slice},
    OpInfo{K::kDynamicUpdateSlice, F::kShape, "stablehlo.dynamic_update_slice", kAny, 0,
           infer_dynamic_update_slice},
    OpInfo{K::kConcatenate, F::kShape, "stablehlo.concatenate", kAny, 0, infer_concatenate},
    OpInfo{K::kPad, F::kShape, "stablehlo.pad", 2, 0, infer_pad},
    OpInfo{K::kReverse, F::kShape, "stablehlo.reverse", 1, 0, infer_reverse},
    OpInfo{K::kDotGeneral, F::kDot, "stablehlo.dot_general", 2, 0, infer_dot_general},
    OpInfo{K::kConvolution, F::kConvolution, "stablehlo.convolution", 2, 0, infer_convolution},
    OpInfo{K::kReduce, F::kReduce, "stablehlo.reduce", kAny, 1, infer_reduce},
    OpInfo{K::kReduceWindow, F::kReduce, "stablehlo.reduce_window", kAny, 1, infer_reduce_window},
    OpInfo{K::kSelectAndScatter, F::kReduce, "stablehlo.select_and_scatter", 3, 2,
           infer_select_and_scatter},
    OpInfo{K::kSort, F::kReduce, "stablehlo.sort", kAny, 1, infer_sort},
    OpInfo{K::kBatchNormInference, F::kReduce, "stablehlo.batch_norm_inference", 5, 0,
           infer_batch_norm_inference},
    OpInfo{K::kGather, F::kGatherScatter, "stablehlo.gather", 2, 0, infer_gather},
    OpInfo{K::kScatter, F::kGatherScatter, "stablehlo.scatter", kAny, 1, infer_scatter},
    OpInfo{K::kWhile, F::kControlFlow, "stablehlo.while", kAny, 2, infer_while},
    OpInfo{K::kIf, F::kControlFlow, "stablehlo.if", 1, 2, infer_if},
    OpInfo{K::kCase, F::kControlFlow, "stablehlo.case", 1, kAny, infer_case},
    OpInfo{K::kCall, F::kControlFlow, "func.call", kAny, 0, infer_call},
    OpInfo{K::kReturn, F::kControlFlow, "stablehlo.return", kAny, 0, infer_return},
    OpInfo{K::kOptimizationBarrier, F::kControlFlow, "stablehlo.optimization_barrier", kAny, 0,
           infer_optimization_barrier},
    OpInfo{K::kRngBitGenerator, F::kRandom, "stablehlo.rng_bit_generator", 1, 0,
           infer_rng_bit_generator},
    OpInfo{K::kAllReduce, F::kCollective, "stablehlo.all_reduce", 1, 1, infer_all_reduce},
    OpInfo{K::kAllGather, F::kCollective, "stablehlo.all_gather", 1, 0, infer_all_gather},
    OpInfo{K::kReduceScatter, F::kCollective, "stablehlo.reduce_scatter", 1, 1,
           infer_reduce_scatter},
    OpInfo{K::kAllToAll, F::kCollective, "stablehlo.all_to_all", 1, 0, infer_all_to_all},
    OpInfo{K::kCollectivePermute, F::kCollective, "stablehlo.collective_permute", 1, 0,
           infer_collective_permute},
    OpInfo{K::kCollectiveBroadcast, F::kCollective, "stablehlo.collective_broadcast", 1, 0,
           infer_collective_broadcast},
    OpInfo{K::kPartitionId, F::kCollective, "stablehlo.partition_id", 0, 0, infer_device_id},
    OpInfo{K::kReplicaId, F::kCollective, "stablehlo.replica_id", 0, 0, infer_device_id},
    OpInfo{K::kCustomCall, F::kCustomCall, "stablehlo.custom_call", kAny, 0, infer_custom_call},
    OpInfo{K::kShardingConstraint, F::kSharding, "sdy.sharding_constraint", 1, 0,
           infer_sharding_constraint},
    OpInfo{K::kManualComputation, F::kSharding, "sdy.manual_computation", kAny, 1,
           infer_manual_computation},
    OpInfo{K::kCholesky, F::kLinalg, "stablehlo.cholesky", 1, 0, infer_cholesky},
    OpInfo{K::kTriangularSolve, F::kLinalg, "stablehlo.triangular_solve", 2, 0,
           infer_triangular_solve},
};

constexpr bool in_order() {
  for (size_t i = 0; i < kTable.size(); ++i) {
    if (static_cast<size_t>(kTable[i].kind) != i) return false;
  }
  return true;
}
static_assert(in_order() && kTable.size() == static_cast<size_t>(K::kTriangularSolve) + 1);

const OpInfo& info(OpKind kind) { return kTable.at(static_cast<size_t>(kind)); }

}  // namespace

std::string_view op_name(OpKind kind) { return info(kind).name; }

std::string_view op_short_name(OpKind kind) {
  const std::string_view name = op_name(kind);
  return name.substr(name.find('.') + 1);
}

Family op_family(OpKind kind) { return info(kind).family; }

std::vector<Shape> infer_results(const OpContext& op) {
  const OpInfo& entry = info(op.kind);
  check(entry.operands == kAny || op.operands.size() == static_cast<size_t>(entry.operands), op,
        "{} operands given, {} expected", op.operands.size(), entry.operands);
  check(entry.regions == kAny || op.regions.size() == static_cast<size_t>(entry.regions), op,
        "{} regions given, {} expected", op.regions.size(), entry.regions);
  return entry.rule(op);
}

}  // namespace ttpu::ir
