#include "ttpu/engine/parallel_plan.h"

#include <algorithm>
#include <numeric>

#include "ttpu/base/error.h"
#include "ttpu/base/log.h"

namespace ttpu::engine {
namespace {

int64_t heads_of(const nn::LayerSpec& layer) {
  return std::visit([](const auto& attention) { return attention.heads; }, layer.attention);
}

// 1: the latent of MLA, which all heads share.
int64_t kv_heads_of(const nn::LayerSpec& layer) {
  const auto* attention = std::get_if<nn::AttentionSpec>(&layer.attention);
  return attention == nullptr ? 1 : attention->kv_heads;
}

int64_t experts_of(const nn::DecoderSpec& spec) {
  int64_t experts = 0;
  for (const nn::LayerSpec& layer : spec.layers) {
    if (const auto* moe = std::get_if<nn::MoeSpec>(&layer.mlp)) {
      experts = std::max(experts, moe->experts);
    }
  }
  return experts;
}

struct Sizes {
  int64_t data = 1;
  int64_t pipe = 1;
  int64_t tensor = 1;
};

Sizes sizes_of(const nn::DecoderSpec& spec, const ParallelOptions& options, int64_t num_devices) {
  const auto checked = [](const char* flag, int64_t size) {
    require(size >= 0 && size <= 4096, "[parallel] {} is {}, expected 1 to 4096", flag, size);
    return size;
  };
  const auto one = [](int64_t size) { return std::max<int64_t>(size, 1); };
  Sizes sizes{checked("--data-parallel-size", options.data_parallel_size),
              one(checked("--pipeline-parallel-size", options.pipeline_parallel_size)),
              checked("--tensor-parallel-size", options.tensor_parallel_size)};
  if (num_devices == 0) return {one(sizes.data), sizes.pipe, one(sizes.tensor)};
  const int64_t left = num_devices / sizes.pipe;  // to each stage
  if (sizes.tensor == 0 && sizes.data == 0) {
    sizes.tensor =
        options.strategy == "auto" ? std::gcd(left, heads_of(spec.layers.at(0))) : one(left);
  }
  if (sizes.data == 0) sizes.data = one(left / sizes.tensor);
  if (sizes.tensor == 0) sizes.tensor = one(left / sizes.data);
  require(sizes.data * sizes.pipe * sizes.tensor == num_devices,
          "[parallel] --tensor-parallel-size {} times --data-parallel-size {}{} is not the number "
          "of devices, {}",
          sizes.tensor, sizes.data,
          sizes.pipe == 1 ? "" : fmt::format(" times --pipeline-parallel-size {}", sizes.pipe),
          num_devices);
  return sizes;
}

std::string strategy_of(const nn::DecoderSpec& spec, const ParallelOptions& options,
                        const Sizes& sizes) {
  const int64_t experts = experts_of(spec);
  if (options.enable_expert_parallel && experts == 0) {
    fail(Code::kInvalidArgument,
         "[parallel] --enable-expert-parallel, but the model has no experts; leave it out");
  }
  if (options.strategy.empty()) return options.enable_expert_parallel ? "expert" : "tensor";
  if (options.strategy != "auto") {
    require(!options.enable_expert_parallel || options.strategy.starts_with("expert"),
            "[parallel] --enable-expert-parallel with --strategy {}; take one that begins with "
            "expert",
            options.strategy);
    return options.strategy;
  }
  const bool few = kv_heads_of(spec.layers.at(0)) % sizes.tensor != 0;
  const bool whole = options.enable_expert_parallel || experts >= sizes.tensor * sizes.data;
  if (experts > 0 && whole) return few ? "expert_context" : "expert";
  return few ? "context" : "sequence";
}

}  // namespace

parallel::Layout choose_layout(const nn::DecoderSpec& spec, const ParallelOptions& options,
                               int64_t num_devices) {
  const Sizes sizes = sizes_of(spec, options, num_devices);
  const parallel::Mesh mesh({{parallel::kDataAxis, sizes.data},
                             {parallel::kPipeAxis, sizes.pipe},
                             {parallel::kTensorAxis, sizes.tensor}});
  parallel::Layout layout(mesh, parallel::find_strategy(strategy_of(spec, options, sizes)));
  nn::own_layers(spec, layout);  // refuses stages of different sizes
  const int64_t heads = heads_of(spec.layers.at(0));
  const int64_t parts = layout.division("heads", heads).parts;
  if (parts < sizes.tensor) {
    spdlog::warn(
        "[parallel] {} heads do not divide among {} devices: attention is computed {} times", heads,
        sizes.tensor, sizes.tensor / parts);
  }
  return layout;
}

}  // namespace ttpu::engine
