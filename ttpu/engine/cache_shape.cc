#include "ttpu/engine/cache_shape.h"

#include "ttpu/base/error.h"

namespace ttpu::engine {
namespace {

bool has_sinks(const nn::LayerSpec& layer) {
  const auto* attention = std::get_if<nn::AttentionSpec>(&layer.attention);
  return attention != nullptr && !attention->sinks.empty();
}

}  // namespace

CacheShape cache_shape(const nn::LayerSpec& layer, int64_t blocks, int64_t block_size, DType dtype,
                       const parallel::Layout& layout, kernels::Platform platform) {
  Dims dims = {blocks, block_size};
  for (const int64_t dim : nn::cache_dims(layer, dtype)) dims.push_back(dim);
  parallel::Placement placement = nn::cache_placement(layout, layer);
  for (size_t i = 1; i < dims.size(); ++i) {
    require(dims[i] % placement[i].parts == 0,
            "[engine] a block of {} tokens does not divide among {} devices; raise --block-size",
            block_size, placement[i].parts);
    dims[i] /= placement[i].parts;
  }
  const bool divided = placement[1].parts > 1;
  if (platform != kernels::Platform::kTpu) return {dims, placement};
  if (!kernels::wants_row_cache(dims, dtype, divided, has_sinks(layer))) {
    return {kernels::paired_cache(dims), placement};
  }
  const Dims rows = kernels::row_cache(dims, dtype);
  if (rows != dims) placement = {placement[0], placement[1], {}, placement[2]};
  return {rows, placement};
}

int64_t block_bytes(const nn::LayerSpec& layer, int64_t block_size, DType dtype,
                    const parallel::Layout& layout, kernels::Platform platform) {
  const CacheShape shape = cache_shape(layer, 1, block_size, dtype, layout, platform);
  int64_t bytes = Shape(dtype, shape.dims).byte_size();
  for (size_t i = 1; i < shape.placement.size(); ++i) bytes *= shape.placement[i].parts;
  return bytes;
}

}  // namespace ttpu::engine
