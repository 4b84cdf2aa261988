// The Mosaic kernels of jax's splash attention in the operator's place: they multiply queries with
// the scale first, and round them.
#pragma once

#include <optional>

#include "ttpu/kernels/sequence_attention/reference.h"

namespace ttpu::kernels {

// As reference::sequence_attention and its gradient, one of which may be by a kernel and the other
// not; nothing where no kernel fits, the reason noted in `kernels`.
std::optional<SequenceAttentionResult> tpu_sequence_attention(
    TpuKernels& kernels, ir::Value q, ir::Value k, ir::Value v, int64_t length,
    const SequenceAttentionOptions& options);

std::optional<ir::Values> tpu_sequence_attention_gradient(TpuKernels& kernels, ir::Value q,
                                                          ir::Value k, ir::Value v, int64_t length,
                                                          const SequenceAttentionOptions& options,
                                                          const SequenceAttentionResult& result,
                                                          ir::Value d_output);

}  // namespace ttpu::kernels
