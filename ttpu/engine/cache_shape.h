// What a device has of a layer's cache.
#pragma once

#include "ttpu/kernels/registry.h"
#include "ttpu/nn/decoder.h"

namespace ttpu::engine {

struct CacheShape {
  Dims dims;
  parallel::Placement placement;  // how that is a part of the whole
};

// Throws kInvalidArgument where devices cannot share a block.
CacheShape cache_shape(const nn::LayerSpec& layer, int64_t blocks, int64_t block_size, DType dtype,
                       const parallel::Layout& layout, kernels::Platform platform);

// Of one block of the layer, on all devices of a replica that have different parts of it.
int64_t block_bytes(const nn::LayerSpec& layer, int64_t block_size, DType dtype,
                    const parallel::Layout& layout, kernels::Platform platform);

}  // namespace ttpu::engine
