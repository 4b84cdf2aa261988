// What an engine computes, from the model and its options alone: the sizes that its programs share,
// and their buckets. Who compiles ahead of time and who serves ask here.
#pragma once

#include "ttpu/engine/capacity.h"
#include "ttpu/engine/engine.h"

namespace ttpu::engine {

// Of a sequence, where no --max-model-len is given and the model allows more.
inline constexpr int64_t kDefaultModelLen = 4096;

struct EnginePlan {
  EngineOptions options;  // with what was left open decided
  parallel::Layout layout;
  // Of one replica of the model.
  std::vector<KvGroup> groups;
  EngineShape shape;
  std::vector<Bucket> buckets;
};

// `cache_bytes`: what the caches of all devices may take together, if options.num_blocks does not
// say how large they are. `num_devices`: see choose_layout. `platform`: for which blocks are
// counted. Throws kInvalidArgument for an option outside of its range, kResourceExhausted when not
// even one sequence fits.
EnginePlan plan_engine(const nn::DecoderSpec& spec, const EngineOptions& options,
                       int64_t cache_bytes, int64_t num_devices = 0,
                       kernels::Platform platform = kernels::Platform::kCpu);

// What the caches may take of the memory that this machine has left.
int64_t cache_budget(const EngineOptions& options);

}  // namespace ttpu::engine
