// The filters of sampling as a Mosaic kernel, one for each chip and shape:
// tools/tpu_kernels/token_filter.py.
#pragma once

#include <optional>

#include "ttpu/kernels/sampling/sampling.h"

namespace ttpu::kernels {

// What top-k, top-p and min-p leave of each row: the tokens whose logit, as an integer in the order
// of the numbers, is above `end`, and of those that equal it the ones up to the token `last`. Both
// s32 [rows].
struct KeptTokens {
  ir::Value end;
  ir::Value last;
};

// Of logits [rows, vocab] over their temperatures. Nothing where there is no kernel.
std::optional<KeptTokens> tpu_token_filter(TpuKernels& kernels, const SamplingInputs& inputs,
                                           ir::Value scaled);

}  // namespace ttpu::kernels
