// Every operator: its kind, name in StableHLO, family, and the rule that infers its results.
#pragma once

#include <cstdint>
#include <string_view>

namespace ttpu::ir {

enum class Family : uint8_t {
  kElementwise,
  kConstant,
  kShape,
  kReduce,
  kDot,
  kGatherScatter,
  kControlFlow,
  kConvolution,
  kRandom,
  kCollective,
  kCustomCall,
  kSharding,
  kConvert,
  kLinalg,
};

enum class OpKind : uint8_t {
  // elementwise
  kAbs,
  kCbrt,
  kCeil,
  kCosine,
  kCountLeadingZeros,
  kExponential,
  kExponentialMinusOne,
  kFloor,
  kIsFinite,
  kLog,
  kLogPlusOne,
  kLogistic,
  kNegate,
  kNot,
  kPopcnt,
  kRoundNearestAfz,
  kRoundNearestEven,
  kRsqrt,
  kSign,
  kSine,
  kSqrt,
  kTan,
  kTanh,
  kAdd,
  kAnd,
  kAtan2,
  kDivide,
  kMaximum,
  kMinimum,
  kMultiply,
  kOr,
  kPower,
  kRemainder,
  kShiftLeft,
  kShiftRightArithmetic,
  kShiftRightLogical,
  kSubtract,
  kXor,
  kClamp,
  kCompare,
  kSelect,
  kMap,
  // convert
  kConvert,
  kBitcastConvert,
  kReducePrecision,
  // constant
  kConstant,
  kIota,
  // shape
  kReshape,
  kTranspose,
  kBroadcastInDim,
  kSlice,
  kDynamicSlice,
  kDynamicUpdateSlice,
  kConcatenate,
  kPad,
  kReverse,
  // dot, convolution
  kDotGeneral,
  kConvolution,
  // reduce
  kReduce,
  kReduceWindow,
  kSelectAndScatter,
  kSort,
  kBatchNormInference,
  // gather, scatter
  kGather,
  kScatter,
  // control flow
  kWhile,
  kIf,
  kCase,
  kCall,
  kReturn,
  kOptimizationBarrier,
  // random
  kRngBitGenerator,
  // collectives
  kAllReduce,
  kAllGather,
  kReduceScatter,
  kAllToAll,
  kCollectivePermute,
  kCollectiveBroadcast,
  kPartitionId,
  kReplicaId,
  // others
  kCustomCall,
  kShardingConstraint,
  kManualComputation,
  kCholesky,
  kTriangularSolve,
};

// "stablehlo.add"
std::string_view op_name(OpKind kind);
// "add": what error messages begin with.
std::string_view op_short_name(OpKind kind);
Family op_family(OpKind kind);

}  // namespace ttpu::ir
