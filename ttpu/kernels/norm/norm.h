// Normalization over the last dimension, alone or behind the sum of a residual stream.
#pragma once

#include <optional>

#include "ttpu/ir/value.h"
#include "ttpu/kernels/registry.h"

namespace ttpu::kernels {

enum class NormKind {
  kRms,    // x / sqrt(mean(x^2) + epsilon) (arXiv:1910.07467)
  kLayer,  // (x - mean) / sqrt(variance + epsilon) (arXiv:1607.06450)
};

// How the weight is applied to the normalized f32 number.
enum class NormScale {
  kRounded,  // both are rounded to x's dtype, then multiplied (Llama)
  kF32,      // multiplied in f32, then rounded
  kOnePlus,  // as kF32, with one added to the weight (Gemma)
};

struct NormOptions {
  NormKind kind = NormKind::kRms;
  NormScale scale = NormScale::kRounded;
  double epsilon = 1e-6;
};

struct NormWeights {
  ir::Value weight;                    // [dim], any float dtype
  std::optional<ir::Value> bias = {};  // [dim], added in f32; kF32 only
};

// x [.., dim]; computed in f32, the result has x's shape and dtype. Throws kInvalidArgument for
// shapes that do not fit.
ir::Value norm(const Target& target, ir::Value x, const NormWeights& weights,
               const NormOptions& options);

struct AddNormResult {
  ir::Value sum;     // x + delta, rounded to their dtype
  ir::Value normed;  // of the sum
};
AddNormResult add_norm(const Target& target, ir::Value x, ir::Value delta,
                       const NormWeights& weights, const NormOptions& options);

}  // namespace ttpu::kernels
