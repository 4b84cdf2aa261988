// Layers divided among the stages of a pipeline: each stage has a run of them, with their weights
// and their part of the caches, and hands on what it has computed (GPipe, arXiv:1811.06965).
//
// All devices run one program. A step goes through in rounds, its tokens in microbatches: in round
// r stage s works on microbatch r - s. Where it has none, it computes what nobody reads, on a batch
// of no sequences, which leaves its caches as they are.
#pragma once

#include <vector>

#include "ttpu/nn/decoder.h"

namespace ttpu::nn {

// Tokens [begin, begin + size) of a step, as a step. begin: an i32 scalar.
StepInputs microbatch(const StepInputs& step, ir::Value begin, int64_t size);

struct PipelineResult {
  ir::Value states;  // [rows, hidden]: what the last layer gives, on every device
  std::vector<ir::Value> caches;
};

// x: [tokens, hidden], of all tokens. caches: of the stage's layers. rows: the tokens whose states
// are wanted. Throws kUnimplemented, with the layer, when stages compute different things.
PipelineResult pipeline(Context& context, const std::vector<LayerSpec>& layers, ir::Value x,
                        const std::vector<ir::Value>& caches, const StepInputs& inputs,
                        ir::Value rows);

}  // namespace ttpu::nn
