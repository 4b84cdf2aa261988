// What an engine computes, from the model and its options alone: the sizes that its programs share,
// and their buckets. Who compiles ahead of time and who serves ask here.
#pragma once

#include <functional>
#include <string>

#include "ttpu/engine/capacity.h"
#include "ttpu/engine/device.h"
#include "ttpu/engine/engine.h"

namespace ttpu::engine {

// A budget for who does not ask whether caches fit.
inline constexpr int64_t kNoLimit = INT64_MAX / 4;

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

// With the strategy "auto" settled for TPUs that have `memory` bytes each, 0 for other devices: as
// choose_layout() does, but "ulysses" for "sequence" (of "expert_..." alike) where the other
// devices' parts of the projections take at most a fifth of what weights leave, and steps are long
// enough to use them. `num_devices`: see choose_layout.
EngineOptions settled(const nn::DecoderSpec& spec, const EngineOptions& options,
                      int64_t num_devices, int64_t memory);

// `cache_bytes`: what the caches of all devices may take together, whether options.num_blocks says
// how large they are or not. `num_devices`: see choose_layout. `platform`: for which blocks are
// counted. Throws kInvalidArgument for an option outside of its range, kResourceExhausted when not
// even one sequence fits.
EnginePlan plan_engine(const nn::DecoderSpec& spec, const EngineOptions& options,
                       int64_t cache_bytes, int64_t num_devices = 0,
                       kernels::Platform platform = kernels::Platform::kCpu);

// Of one device, in the form that `format_of` gives them.
int64_t weight_bytes(const nn::DecoderSpec& spec, const EngineOptions& options,
                     const kernels::Target& target, const nn::FormatOf& format_of,
                     int64_t num_devices = 0);

// What caches may take of `usable` bytes of each of `devices` devices. Throws kResourceExhausted
// when weights alone do not fit. `where` names the devices.
int64_t beside_weights(int64_t usable, int64_t weights, int64_t devices, const std::string& where);

// What the caches may take: of the memory that this machine has left where devices share it, else
// of what weights leave of the devices' own. `weights`: their bytes on one device. With
// options.num_blocks all the memory, which bounds them.
int64_t cache_budget(const EngineOptions& options, const pjrt::Client& client, int64_t devices,
                     const std::function<int64_t()>& weights);

}  // namespace ttpu::engine
