// The loss: cross entropy of the next token.
#pragma once

#include "ttpu/ir/value.h"
#include "ttpu/parallel/strategy.h"

namespace ttpu::train {

// A target below zero is not counted, as torch's ignore_index of -100.
ir::Value is_counted(ir::Value targets);  // i1

struct CrossEntropy {
  ir::Value loss;       // f32 scalar: the sum over the counted tokens
  ir::Value cotangent;  // of `own`, the loss being scaled by `scale`
};
// own: f32 [tokens, vocab / parts], the logits of the device's part of the vocabulary; behind it
// they count for nothing. targets: [tokens] i32. scale: f32 scalar.
CrossEntropy cross_entropy(const parallel::Layout& layout, int64_t vocab, ir::Value own,
                           ir::Value targets, ir::Value scale);

}  // namespace ttpu::train
