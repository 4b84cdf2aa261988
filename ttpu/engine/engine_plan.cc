#include "ttpu/engine/engine_plan.h"

#include <algorithm>

#include "ttpu/base/error.h"
#include "ttpu/parallel/control/control_plane.h"
#include "ttpu/plan/analytic.h"

namespace ttpu::engine {
namespace {

constexpr int64_t kMostTokens = int64_t{1} << 20;  // of one step

void check_options(const nn::DecoderSpec& spec, const EngineOptions& options) {
  require(options.max_model_len >= 0 && options.max_model_len <= spec.max_positions,
          "[engine] --max-model-len is {}, the model allows at most {} tokens",
          options.max_model_len, spec.max_positions);
  require(options.max_num_seqs > 0 && options.max_num_seqs <= 4096,
          "[engine] --max-num-seqs (--batch) is {}, expected 1 to 4096", options.max_num_seqs);
  require(options.max_num_batched_tokens > 0 && options.max_num_batched_tokens <= kMostTokens,
          "[engine] --max-num-batched-tokens (--prefill-tokens) is {}, expected 1 to {}",
          options.max_num_batched_tokens, kMostTokens);
  require(options.memory_fraction > 0 && options.memory_fraction <= 1,
          "[engine] --memory-fraction is {}, expected a number in (0, 1]", options.memory_fraction);
  require(options.block_size > 0 && options.block_size <= 1024,
          "[engine] --block-size is {}, expected 1 to 1024", options.block_size);
  const int64_t drafts = options.speculation.num_speculative_tokens;
  require(drafts >= 0 && drafts <= 16, "[engine] --num-speculative-tokens is {}, expected 0 to 16",
          drafts);
}

// How often one replica's cache is held by all devices together.
int64_t copies_of_cache(const parallel::Layout& layout, const nn::DecoderSpec& spec) {
  int64_t parts = 1;
  for (const parallel::Division& division : nn::cache_placement(layout, spec.layers.at(0))) {
    parts *= division.parts;
  }
  return layout.mesh().num_devices() / (parts / layout.replicas());
}

// All that there is, where that is known: what --num-blocks is held against. What it leaves too
// little for, weights or programs, the plugin says.
int64_t whole_memory(const EngineOptions& options, const pjrt::Client& client, int64_t devices) {
  try {
    if (platform_of(client) == kernels::Platform::kCpu) {
      const int processes = options.control == nullptr ? 1 : options.control->processes();
      return processes * available_memory();
    }
    const std::optional<pjrt::MemoryStats> stats = client.devices().at(0).memory_stats();
    if (stats && stats->bytes_limit) return devices * (*stats->bytes_limit - stats->bytes_in_use);
  } catch (const Error&) {  // --num-blocks is for such machines, too
  }
  return kNoLimit;
}

}  // namespace

EngineOptions settled(const nn::DecoderSpec& spec, const EngineOptions& options,
                      int64_t num_devices, int64_t memory) {
  if (options.parallel.strategy != "auto" || memory == 0) return options;
  const parallel::Layout layout = choose_layout(spec, options.parallel, num_devices);
  const int64_t tensor = layout.mesh().size(parallel::kTensorAxis);
  const std::string& given = layout.strategy().name;
  if ((given != "sequence" && given != "expert_sequence") || tensor == 1) return options;
  const std::string wanted = given == "sequence" ? "ulysses" : "expert_ulysses";
  // Shorter steps never use them.
  if (options.max_num_batched_tokens < tensor * nn::kLeastTokensOnTpu) return options;
  plan::Workload work;
  work.element_bytes = bit_width(options.dtype) / 8.0;  // what is quantized takes less
  plan::Candidate candidate;
  candidate.tensor = tensor;
  candidate.data = layout.mesh().size(parallel::kDataAxis);
  candidate.stages = layout.mesh().size(parallel::kPipeAxis);
  const auto weights = [&](const std::string& strategy) {
    candidate.strategy = strategy;
    return plan::weight_bytes(plan::facts_of(spec), work, candidate);
  };
  const double own = weights(given);
  constexpr double kShare = 0.2;
  if (weights(wanted) - own > kShare * (static_cast<double>(memory) - own)) return options;
  EngineOptions result = options;
  result.parallel.tensor_parallel_size = candidate.tensor;
  result.parallel.data_parallel_size = candidate.data;
  result.parallel.pipeline_parallel_size = candidate.stages;
  result.parallel.strategy = wanted;
  return result;
}

int64_t weight_bytes(const nn::DecoderSpec& spec, const EngineOptions& options,
                     const kernels::Target& target, const nn::FormatOf& format_of,
                     int64_t num_devices) {
  const EnginePlan plan = plan_engine(spec, options, kNoLimit, num_devices, target.platform);
  const EngineProgram program = build_engine_program(spec, plan.shape, plan.buckets.front(), target,
                                                     options.dtype, format_of, plan.layout);
  return program.weight_bytes();
}

int64_t beside_weights(int64_t usable, int64_t weights, int64_t devices, const std::string& where) {
  if (usable < weights) {
    fail(Code::kResourceExhausted,
         "[engine] does not fit: weights need {} MB on each device of {}, of which {} MB may be "
         "used; take more or larger devices, or --quantization",
         weights >> 20, where, usable >> 20);
  }
  return devices * (usable - weights);
}

int64_t cache_budget(const EngineOptions& options, const pjrt::Client& client, int64_t devices,
                     const std::function<int64_t()>& weights) {
  if (options.num_blocks > 0) return whole_memory(options, client, devices);
  if (platform_of(client) != kernels::Platform::kCpu) {
    return beside_weights(usable_memory(client, options.memory_fraction), weights(), devices,
                          options.device);
  }
  const auto bytes =
      static_cast<int64_t>(static_cast<double>(available_memory()) * options.memory_fraction);
  return options.control == nullptr ? bytes : bytes / options.control->processes_on_this_host();
}

EnginePlan plan_engine(const nn::DecoderSpec& spec, const EngineOptions& given, int64_t cache_bytes,
                       int64_t num_devices, kernels::Platform platform) {
  check_options(spec, given);
  EnginePlan plan;
  plan.options = given;
  plan.layout = choose_layout(spec, given.parallel, num_devices);
  EngineOptions& options = plan.options;
  options.parallel.tensor_parallel_size = plan.layout.mesh().size(parallel::kTensorAxis);
  options.parallel.data_parallel_size = plan.layout.mesh().size(parallel::kDataAxis);
  options.parallel.pipeline_parallel_size = plan.layout.mesh().size(parallel::kPipeAxis);
  options.parallel.strategy = plan.layout.strategy().name;
  if (options.max_model_len == 0) {
    options.max_model_len = std::min(spec.max_positions, kDefaultModelLen);
  }
  options.max_num_batched_tokens =
      std::max(std::min(given.max_num_batched_tokens, options.max_model_len * given.max_num_seqs),
               given.max_num_seqs);
  plan.shape.cache_dtype = given.cache_dtype.value_or(given.dtype);
  plan.groups =
      plan_cache(spec, {options.max_model_len, options.max_num_seqs, options.max_num_batched_tokens,
                        options.block_size, options.num_blocks,
                        cache_bytes / copies_of_cache(plan.layout, spec), plan.shape.cache_dtype,
                        plan.layout, platform});
  plan.shape.slots = options.max_num_seqs;
  plan.shape.block_size = options.block_size;
  plan.shape.blocks_per_sequence =
      (options.max_model_len + options.block_size - 1) / options.block_size;
  for (const KvGroup& group : plan.groups) plan.shape.group_blocks.push_back(group.blocks);
  plan.shape.top_logprobs = std::min(plan.shape.top_logprobs, spec.vocab);
  plan.buckets = plan_buckets(options.max_num_seqs, options.max_num_batched_tokens,
                              options.speculation.num_speculative_tokens);
  return plan;
}

}  // namespace ttpu::engine
