// Sampling in plain StableHLO, but for the filters where `kernels`, which may be null, has one.
#pragma once

#include "ttpu/kernels/sampling/sampling.h"

namespace ttpu::kernels::reference {

SamplingResult sample(const SamplingInputs& inputs, const SamplingOptions& options,
                      TpuKernels* kernels);
ir::Value count_tokens(ir::Value counts, ir::Value slots, ir::Value tokens);
LogprobsResult token_logprobs(ir::Value logits, ir::Value tokens, int64_t top);

}  // namespace ttpu::kernels::reference
