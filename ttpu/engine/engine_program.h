// The program of one step of the engine: a ragged batch of sequences goes in, sampled tokens come
// out, and the caches stay on the device. One exists per bucket.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ttpu/engine/request.h"
#include "ttpu/ir/module.h"
#include "ttpu/kernels/registry.h"
#include "ttpu/nn/decoder.h"

namespace ttpu::engine {

// The shapes that a program is compiled for; padding included.
struct Bucket {
  int64_t tokens = 1;
  int64_t sequences = 1;
  int64_t rows = 1;  // tokens whose logits are looked at
  bool operator==(const Bucket&) const = default;
};

// What all programs of an engine share.
struct EngineShape {
  int64_t slots = 1;  // sequences that run at once
  int64_t block_size = 64;
  int64_t blocks_per_sequence = 1;
  std::vector<int64_t> group_blocks;  // blocks of each group's caches, as kv_windows lists them
  DType cache_dtype = DType::kBF16;
  int64_t top_logprobs = kMostLogprobs;
  int64_t biases = kMostBiases;  // of a row
  bool logits = false;           // also give the logits of the rows, for tests
  // Scanned: one cache for all layers, whose groups have equally many blocks. For programs that are
  // compiled to be looked at; the engine unrolls.
  nn::Layers layers = nn::Layers::kUnrolled;
};

// The sliding window of a layer's attention; none: it sees everything.
std::optional<int64_t> window_of(const nn::LayerSpec& layer);
// The sliding windows of a model's layers, each once; layers of one group share a table of blocks.
std::vector<std::optional<int64_t>> kv_windows(const nn::DecoderSpec& spec);

// The 32-bit numbers that a step brings, in one array. f32 and u32 ones lie in it by their bits.
enum class StepField {
  kTokens,  // [tokens]: a token, or -1 - slot for the last one that was sampled in that slot
  kPositions,
  kKvLens,        // [sequences]
  kCuQLens,       // [sequences + 1]
  kDistribution,  // [3]
  kPages,         // [groups, sequences, blocks_per_sequence]
  kRows,          // [rows]: index in the flat batch
  kRowSlots,      // [rows]: where the sampled token is kept; -1: nowhere
  kRowTargets,    // [rows]: the token whose log probability is wanted; -1: the sampled one
  kTemperature,   // from here on [rows], as kernels::SamplingInputs has them
  kTopK,
  kTopP,
  kMinP,
  kSeeds,  // [rows, 2]
  kSamplePosition,
  kHistorySlots,
  kRepetition,
  kFrequency,
  kPresence,
  kLogprobs,  // [1]: whether log probabilities are wanted
  kNumFields,
};

class StepLayout {
 public:
  StepLayout(const EngineShape& shape, const Bucket& bucket);
  int64_t offset(StepField field) const { return offsets_[static_cast<size_t>(field)]; }
  int64_t size(StepField field) const {
    return offsets_[static_cast<size_t>(field) + 1] - offset(field);
  }
  int64_t total() const { return offsets_.back(); }

 private:
  std::vector<int64_t> offsets_;
};

// Arguments, in this order; then the caches, one for each layer of the device (one for all when
// they are scanned); then the weights.
enum class EngineArgument {
  kStep,        // s32 [StepLayout::total()]
  kAllowed,     // u32 [rows, ceil(vocab / 32)]: tokens that may be sampled
  kBiasTokens,  // s32 [rows, biases]
  kBiasValues,  // f32 [rows, biases]
  kLastTokens,  // s32 [slots], donated
  kCounts,      // u16 [slots, vocab], donated: kernels::TokenHistory::counts
  kNumArguments,
};

// Results, in this order; then the caches; then, with EngineShape::logits, those [rows, vocab].
enum class EngineResult {
  kTokens,       // s32 [rows]
  kLogprobs,     // f32 [rows]
  kTopTokens,    // s32 [rows, top_logprobs]
  kTopLogprobs,  // f32 [rows, top_logprobs]
  kLastTokens,
  kCounts,
  kNumResults,
};

// "main" is the whole program; `device` what each device computes, with the shapes below (the same
// function where there is one device).
struct EngineProgram {
  std::unique_ptr<ir::Module> module;
  const ir::Function* device = nullptr;
  std::vector<Shape> arguments;  // by EngineArgument
  std::vector<Shape> caches;
  std::vector<nn::WeightDecl> weights;
  int64_t weight_bytes() const;  // of one device
};

// `shape` and `bucket` are those of one replica: each has its own sequences, slots and blocks, and
// the arrays of all of them lie one after another. With layers that are scanned, one replica.
EngineProgram build_engine_program(const nn::DecoderSpec& spec, const EngineShape& shape,
                                   const Bucket& bucket, const kernels::Target& target,
                                   DType compute, const nn::FormatOf& format_of,
                                   const parallel::Layout& layout = {});

// counts[slot] = row, in place; slot -1: nothing is set. Arguments: counts as
// EngineArgument::kCounts, slot s32 [1], row u16 [1, vocab], the last two of each replica.
std::unique_ptr<ir::Module> build_history_program(int64_t slots, int64_t vocab,
                                                  const parallel::Layout& layout = {});

// Copies blocks of the caches, one after the other, in place: cache[to] = cache[from]. Arguments
// are the caches, `copies` as copies_shape() has it (group, from, to) and how many of them there
// are, s32 [1]; results the caches. A step copies at most one block a sequence and group.
std::unique_ptr<ir::Module> build_copy_program(const nn::DecoderSpec& spec,
                                               const EngineShape& shape,
                                               const parallel::Layout& layout,
                                               kernels::Platform platform);
Shape copies_shape(const EngineShape& shape);

}  // namespace ttpu::engine
