// The program of one engine step: a flat batch of tokens of one or more sequences goes in, logits
// of chosen rows and the updated caches come out.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ttpu/ir/module.h"
#include "ttpu/kernels/registry.h"
#include "ttpu/nn/decoder.h"

namespace ttpu::engine {

// The shapes that a program is compiled for.
struct StepShape {
  int64_t tokens = 1;  // in the flat batch, padding included
  int64_t sequences = 1;
  int64_t pages_per_sequence = 1;
  int64_t pages = 1;  // of each layer's cache
  int64_t page_size = 16;
  int64_t rows = 1;  // whose logits are given
  nn::Layers layers = nn::Layers::kUnrolled;
};

// The order of the program's arguments before the caches; the weights come last.
enum StepArgument : int {
  kTokens,
  kPositions,
  kKvLens,
  kPageIndices,
  kCuQLens,
  kDistribution,
  kRows,
  kNumStepArguments,
};

struct StepProgram {
  std::unique_ptr<ir::Module> module;
  std::vector<Shape> inputs;            // by StepArgument
  std::vector<Shape> caches;            // one a layer, or one for all when they are scanned;
                                        // result 1 + i takes the memory of cache i
  std::vector<nn::WeightDecl> weights;  // in the order of the arguments
  // Arguments: inputs, caches, weights. Results: logits [rows, vocab] f32, caches.
};

StepProgram build_step_program(const nn::DecoderSpec& spec, const StepShape& shape,
                               const kernels::Target& target, DType compute, DType cache_dtype,
                               const nn::FormatOf& format_of);

}  // namespace ttpu::engine
