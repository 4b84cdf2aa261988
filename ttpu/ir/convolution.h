// Convolution.
#pragma once

#include <utility>
#include <vector>

#include "ttpu/ir/attribute.h"

namespace ttpu::ir {

struct ConvolutionOptions {
  Dims window_strides = {};                               // default 1
  std::vector<std::pair<int64_t, int64_t>> padding = {};  // (low, high), default 0
  Dims lhs_dilation = {};                                 // default 1
  Dims rhs_dilation = {};
  std::vector<bool> window_reversal = {};
  int64_t feature_group_count = 1;
  int64_t batch_group_count = 1;
  Precision precision = Precision::kDefault;
};

Value convolution(Value lhs, Value rhs, ConvolutionDimensionNumbers dims,
                  const ConvolutionOptions& options = {});

}  // namespace ttpu::ir
