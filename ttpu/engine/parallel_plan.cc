#include "ttpu/engine/parallel_plan.h"

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include <fmt/ranges.h>

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

// The sizes that were given do not make up the devices.
[[noreturn]] void refuse_sizes(const ParallelOptions& options, int64_t num_devices) {
  const std::pair<const char*, int64_t> sizes[] = {
      {"--tensor-parallel-size", options.tensor_parallel_size},
      {"--data-parallel-size", options.data_parallel_size},
      {"--pipeline-parallel-size", options.pipeline_parallel_size}};
  std::vector<std::string> given;
  int64_t product = 1;
  for (const auto& [flag, size] : sizes) {
    if (size > 0) given.push_back(fmt::format("{} {}", flag, size));
    product *= std::max<int64_t>(size, 1);
  }
  const std::string what =
      fmt::format("{}{}", fmt::join(given, " times "),
                  given.size() > 1 ? fmt::format(" is {}, which", product) : "");
  // Where both are given, nothing takes the devices that are left.
  require(
      options.tensor_parallel_size == 0 || options.data_parallel_size == 0,
      "[parallel] {} is not the number of devices, {}; give sizes whose product it is, or leave "
      "one of them out",
      what, num_devices);
  std::vector<int64_t> divisors;
  for (int64_t size = 1; size <= num_devices; ++size) {
    if (num_devices % size == 0) divisors.push_back(size);
  }
  fail(Code::kInvalidArgument,
       "[parallel] {} does not divide the number of devices, {}; what does: {}", what, num_devices,
       fmt::join(divisors, ", "));
}

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
  if (sizes.data * sizes.pipe * sizes.tensor != num_devices) refuse_sizes(options, num_devices);
  return sizes;
}

std::string strategy_of(const nn::DecoderSpec& spec, const ParallelOptions& options,
                        const Sizes& sizes) {
  const int64_t experts = experts_of(spec);
  const bool by_name = options.strategy.starts_with("expert");
  if ((options.enable_expert_parallel || by_name) && experts == 0) {
    fail(Code::kInvalidArgument, "[parallel] {}, but the model has no experts; leave it out",
         by_name ? "--strategy " + options.strategy : "--enable-expert-parallel");
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
  std::string divided = few ? "context" : "sequence";
  if (experts == 0 || !whole) return divided;
  return sizes.tensor == 1 ? "expert" : "expert_" + divided;
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
