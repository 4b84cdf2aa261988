// Over which devices an engine is divided, and how.
#pragma once

#include <string>

#include "ttpu/nn/decoder.h"
#include "ttpu/parallel/strategy.h"

namespace ttpu::engine {

// vLLM's names.
struct ParallelOptions {
  int64_t tensor_parallel_size = 0;  // 0: one, or with `num_devices` those that are left
  int64_t data_parallel_size = 0;    // 0: one
  bool enable_expert_parallel = false;
  std::string strategy;  // of parallel::strategies(), or "auto"; empty: tensor or expert
  int64_t pipeline_parallel_size = 0;  // 0: one

  bool operator==(const ParallelOptions&) const = default;
};

// The mesh and the strategy. `num_devices`: how many devices there are, all of which are to be
// used; 0: as many as the options say. "auto" takes experts whole where there are enough of them,
// and divides the cache by positions where KV heads are too few; with `num_devices` and no sizes,
// as many devices share each head-divided layer as its heads divide among, and replicas take the
// rest. Throws kInvalidArgument for sizes that do not make up `num_devices`, layers that do not
// divide among the stages, an unknown strategy, or experts asked for of a model without.
parallel::Layout choose_layout(const nn::DecoderSpec& spec, const ParallelOptions& options,
                               int64_t num_devices = 0);

}  // namespace ttpu::engine
