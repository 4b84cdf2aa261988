// The custom calls of sampling; kernels::sample and token_logprobs write them.
#pragma once

#include <span>

#include "ttpu/kernels/cpu/handler.h"

namespace ttpu::kernels {

// "ttpu_sampling": operands logits, temperature, top_k, top_p, min_p, seeds, position; where
// has_history counts, slots, repetition, frequency, presence; where has_bias tokens and values;
// where has_allowed the mask. Results: tokens; counts (aliases the operand); where `logprobs` those
// of the tokens, and where more results are declared the top tokens and theirs.
inline constexpr const char* kSamplingTarget = "ttpu_sampling";
// "ttpu_logprobs": operands logits and tokens; results logprobs, then perhaps top tokens and
// theirs.
inline constexpr const char* kLogprobsTarget = "ttpu_logprobs";

std::span<const CpuHandler> sampling_cpu_handlers();

}  // namespace ttpu::kernels
