// Weights that transformers stores quantized, in several tensors each.
#pragma once

#include <vector>

#include "ttpu/io/quantization_config.h"
#include "ttpu/io/tensor.h"

namespace ttpu::io {

// Of tensors as they are stored, those of each quantized module ("x.qweight", "x.scales", ...) as
// one, "x.weight", which is a QuantizedMatrix. Scales of activations and of caches are left out:
// activations are scaled by each token. The layouts are those of AutoAWQ's gemm, AutoGPTQ,
// compressed-tensors (pack-quantized, int-quantized, float-quantized) and of DeepSeek-V3's fp8.
// Throws kInvalidArgument where shapes do not fit each other and kUnimplemented for columns that
// were reordered (desc_act).
std::vector<Tensor> join_quantized(std::vector<Tensor> tensors, const QuantizationConfig& config);

}  // namespace ttpu::io
