// One sequence on a runner, token by token or in pieces, with all logits: what comparisons with
// other implementations need.
#pragma once

#include "ttpu/engine/runner.h"
#include "ttpu/models/registry.h"

namespace ttpu::engine {

class Stepper {
 public:
  struct Options {
    DType dtype = DType::kF32;
    std::optional<DType> cache_dtype = {};  // none: the same
    bool expand_weights = false;
    std::string quantization = {};
    bool kernels = true;
    int64_t max_length = 128;
    int64_t chunk = 64;  // tokens of the larger program
  };

  Stepper(const Json& config, const std::filesystem::path& weights, const Options& options)
      : chunk_(options.chunk) {
    const nn::DecoderSpec spec = models::decoder_from_config(config);
    RunnerOptions runner;
    runner.dtype = options.dtype;
    runner.expand_weights = options.expand_weights;
    runner.quantization = options.quantization;
    runner.custom_calls = options.kernels;
    runner.shape.block_size = 16;
    runner.shape.blocks_per_sequence = (options.max_length + 15) / 16;
    runner.shape.cache_dtype = options.cache_dtype.value_or(options.dtype);
    runner.shape.logits = true;
    const size_t groups = kv_windows(spec).size();
    runner.shape.group_blocks.assign(groups, runner.shape.blocks_per_sequence);
    runner.buckets = {{1, 1, 1}, {options.chunk, 1, 1}};
    runner_ = std::make_unique<Runner>(spec, weights, runner);
    sequence_.slot = 0;
    std::vector<int32_t> blocks;
    for (int32_t b = 0; b < runner.shape.blocks_per_sequence; ++b) blocks.push_back(b);
    sequence_.blocks.assign(groups, blocks);
  }

  int64_t vocab() const { return runner_->vocab(); }
  void reset() { sequence_.tokens.clear(); }
  // The logits [vocab] after the last of them; valid until the call after the next.
  std::span<const float> append(std::span<const int32_t> tokens) {
    std::span<const float> logits;
    while (!tokens.empty()) {
      const auto count = std::min(tokens.size(), static_cast<size_t>(chunk_));
      const auto first = static_cast<int64_t>(sequence_.tokens.size());
      sequence_.tokens.insert(sequence_.tokens.end(), tokens.begin(),
                              tokens.begin() + static_cast<std::ptrdiff_t>(count));
      const Scheduled item{&sequence_, first, static_cast<int64_t>(count), true};
      Row row;
      row.token = static_cast<int64_t>(count) - 1;
      runner_->launch(std::span(&item, 1), std::span(&row, 1), false);
      logits = runner_->finish().logits;
      tokens = tokens.subspan(count);
    }
    return logits;
  }

 private:
  int64_t chunk_;
  std::unique_ptr<Runner> runner_;
  Sequence sequence_;
};

}  // namespace ttpu::engine
