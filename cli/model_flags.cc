#include "cli/model_flags.h"

#include <cstdio>

#include <fmt/ranges.h>
#include <sys/resource.h>

#include "cli/numbers.h"
#include "ttpu/base/error.h"
#include "ttpu/engine/bundle.h"
#include "ttpu/engine/capacity.h"
#include "ttpu/io/config.h"
#include "ttpu/io/hub.h"
#include "ttpu/parallel/strategy.h"

namespace ttpu::cli {
namespace {

int64_t peak_rss_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss * 1024;
}

}  // namespace

std::vector<std::string> strategy_names() {
  std::vector<std::string> names;
  for (const parallel::Strategy& strategy : parallel::strategies()) names.push_back(strategy.name);
  return names;
}

void add_parallel_flags(CLI::App& command, engine::ParallelOptions* flags) {
  command.add_option("--tensor-parallel-size,--tp", flags->tensor_parallel_size,
                     "Devices that share each layer (with --device cpu, so many are made)");
  command.add_option("--pipeline-parallel-size,--pp", flags->pipeline_parallel_size,
                     "Stages, each with as many of the layers and their part of the cache");
  command.add_option("--data-parallel-size,--dp", flags->data_parallel_size,
                     "Replicas of the model, each with requests of its own");
  command.add_flag("--enable-expert-parallel,--ep", flags->enable_expert_parallel,
                   "Whole experts on different devices, instead of parts of all of them");
  command.add_option(
      "--strategy", flags->strategy,
      fmt::format("How layers are divided among devices (docs/parallel.md): auto, {}",
                  fmt::join(strategy_names(), ", ")));
}

void add_cache_dtype_flag(CLI::App& command, std::string* name) {
  command
      .add_option("--kv-cache-dtype", *name,
                  "Type of the cache's keys and values; auto is that of the activations, int8 and "
                  "fp8 take half of bf16")
      ->check(CLI::IsMember({"auto", "bf16", "bfloat16", "f32", "int8", "fp8", "fp8_e4m3"}))
      ->capture_default_str();
}

void add_quantization_flag(CLI::App& command, std::string* quantization) {
  command
      .add_option("--quantization,-q", *quantization,
                  "int8, fp8 or int4: linear layers are quantized when they are loaded; without it "
                  "weights are as the checkpoint has them (docs/quantization.md)")
      ->check(CLI::IsMember({"int8", "fp8", "int4"}));
}

Json read_config(const std::string& model) {
  if (model.ends_with(".json")) return read_json(model);
  return io::load_model_files(io::resolve_model(model)).config;
}

std::vector<std::string> parallel_arguments(const engine::ParallelOptions& options) {
  std::vector<std::string> arguments = {
      "--tensor-parallel-size",   std::to_string(options.tensor_parallel_size),
      "--pipeline-parallel-size", std::to_string(options.pipeline_parallel_size),
      "--data-parallel-size",     std::to_string(options.data_parallel_size)};
  if (options.enable_expert_parallel) arguments.emplace_back("--enable-expert-parallel");
  if (!options.strategy.empty()) {
    arguments.insert(arguments.end(), {"--strategy", options.strategy});
  }
  return arguments;
}

void add_load_flags(CLI::App& command, LoadFlags* flags) {
  flags->command = &command;
  command.add_option("model", flags->model,
                     "A folder in Hugging Face layout, a .gguf file, or a hub id such as "
                     "HuggingFaceTB/SmolLM2-135M-Instruct; with --bundle, that of the bundle");
  command.add_option("--bundle", flags->engine.bundle,
                     "Load the programs that `ttpu compile -o` made, and compile none");
  command
      .add_option("--device", flags->engine.device, "cpu, tpu, cuda, or the path of a PJRT plugin")
      ->capture_default_str();
  command
      .add_option("--dtype", flags->dtype,
                  "Type of activations; auto is bf16, and f32 for embeddings")
      ->check(CLI::IsMember({"auto", "bf16", "f32"}))
      ->capture_default_str();
  command
      .add_option(
          "--weights", flags->weights,
          "auto keeps GGUF's blocks: as they are for CPU kernels, elsewhere the same numbers "
          "with scales of groups (bf16 once with --dtype f32); bf16 expands them when they "
          "are loaded")
      ->check(CLI::IsMember({"auto", "bf16"}))
      ->capture_default_str();
  add_quantization_flag(command, &flags->engine.quantization);
  command.add_flag("--no-kernels", flags->no_kernels, "Plain XLA, without TTPU's own CPU kernels");
  add_cache_dtype_flag(command, &flags->cache_dtype);
  command.add_option("--max-model-len", flags->engine.max_model_len,
                     "Most tokens of prompt and answer together (0: the model's, to 4096)");
  add_parallel_flags(command, &flags->engine.parallel);
  command
      .add_option("--num-speculative-tokens", flags->engine.speculation.num_speculative_tokens,
                  "Guess so many tokens a step, without --speculative-model by looking for "
                  "repetitions; the text stays the same")
      ->check(zero_or_more())
      ->capture_default_str();
  command.add_option("--speculative-model", flags->engine.speculation.model,
                     "A smaller model with the same vocabulary that makes the guesses");
  command.add_option("--speculative-config", flags->speculative_config,
                     "The same as JSON, with vLLM's names: model, num_speculative_tokens, method, "
                     "prompt_lookup_max, prompt_lookup_min");
}

void add_model_flags(CLI::App& command, ModelFlags* flags) {
  add_load_flags(command, flags);
  command.add_flag("--stats", flags->stats, "Print times, tokens a second and memory");
  engine::SamplingParams& sampling = flags->sampling;
  command.add_option("--temperature", sampling.temperature, "0 is greedy")->capture_default_str();
  command.add_option("--top-k", sampling.top_k, "Keep the so many likeliest tokens (0: all)")
      ->capture_default_str();
  command.add_option("--top-p", sampling.top_p, "Keep the likeliest tokens up to this probability")
      ->capture_default_str();
  command.add_option("--min-p", sampling.min_p, "Drop tokens below this share of the likeliest")
      ->capture_default_str();
  command.add_option("--repetition-penalty", sampling.repetition_penalty, "1 is none")
      ->capture_default_str();
  command.add_option("--seed", sampling.seed, "The same seed gives the same text")
      ->capture_default_str();
  command.add_option("--max-tokens", sampling.max_tokens, "Most tokens of the answer")
      ->capture_default_str();
  command.add_option("--stop", sampling.stop, "End before this text; may be repeated")
      ->allow_extra_args(false);  // else CLI11 takes values in brackets apart
}

engine::EngineOptions engine_options(const LoadFlags& flags) {
  engine::EngineOptions options = flags.engine;
  options.dtype = flags.dtype == "f32" ? DType::kF32 : DType::kBF16;
  options.expand_weights = flags.weights == "bf16" || options.dtype == DType::kF32;
  options.custom_calls = !flags.no_kernels;
  if (!flags.speculative_config.empty()) {
    options.speculation = engine::speculation_from_config(
        parse_json(flags.speculative_config, "--speculative-config"));
  }
  options.cache_dtype = engine::cache_dtype_of(flags.cache_dtype);
  return options;
}

std::filesystem::path model_path(const LoadFlags& flags) {
  if (!flags.model.empty()) return io::resolve_model(flags.model);
  require(!flags.engine.bundle.empty(), "[cli] no model was given; give one, or --bundle");
  const std::string own = engine::Bundle::open(flags.engine.bundle)->model_path();
  try {
    return io::resolve_model(own);
  } catch (const Error& error) {
    const std::string bundle = flags.engine.bundle.string();
    fail(error.code(), "{}. The path comes from the bundle '{}'; `MODEL --bundle {}` gives another",
         error.what(), bundle, bundle);
  }
}

engine::EngineOptions with_bundle(const LoadFlags& flags, const engine::EngineOptions& options) {
  if (options.bundle.empty()) return options;
  std::vector<std::string> asked;
  for (const std::string& name : engine::Bundle::flags()) {
    const CLI::Option* option = flags.command->get_option_no_throw("--" + name);
    if (option != nullptr && option->count() > 0) asked.push_back(name);
  }
  return engine::Bundle::open(options.bundle)->options(options, asked);
}

engine::EmbedderOptions embedder_options(const LoadFlags& flags) {
  engine::EmbedderOptions options;
  options.device = flags.engine.device;
  options.dtype = flags.dtype == "bf16" ? DType::kBF16 : DType::kF32;
  options.expand_weights = flags.weights == "bf16" || options.dtype == DType::kF32;
  options.quantization = flags.engine.quantization;
  options.custom_calls = !flags.no_kernels;
  options.max_model_len = flags.engine.max_model_len;
  return options;
}

void print_stats(const engine::Engine& engine, const engine::GenerationResult& result,
                 size_t prompt_tokens) {
  const engine::LoadStats& load = engine.stats();
  const auto decoded = static_cast<double>(result.token_ids.size()) - 1;
  std::fprintf(stderr,
               "load       %.2f s (%.1f MB of weights)\n"
               "compile    %.2f s (%ld programs, %ld compiled now)\n"
               "prompt     %zu tokens, first token after %.3f s\n"
               "decode     %zu tokens, %.1f tokens/s\n"
               "peak RSS   %.1f MB\n",
               load.load_seconds, static_cast<double>(load.weight_bytes) / 1e6,
               load.compile_seconds, load.programs, load.compiled, prompt_tokens,
               result.first_token_seconds, result.token_ids.size(),
               result.decode_seconds > 0 ? decoded / result.decode_seconds : 0.0,
               static_cast<double>(peak_rss_bytes()) / 1e6);
  const engine::EngineMetrics& metrics = engine.metrics();
  if (metrics.draft_tokens == 0) return;
  std::fprintf(stderr, "guesses    %ld, %.0f%% right; %.2f times the speed without them\n",
               metrics.draft_tokens.load(),
               100 * static_cast<double>(metrics.accepted_draft_tokens) /
                   static_cast<double>(metrics.draft_tokens),
               metrics.speculation_speed_up.load());
}

Json stats_json(const engine::Engine& engine, const engine::GenerationResult& result) {
  const engine::LoadStats& load = engine.stats();
  return {{"load_seconds", load.load_seconds},
          {"compile_seconds", load.compile_seconds},
          {"programs", load.programs},
          {"compiled", load.compiled},
          {"weight_bytes", load.weight_bytes},
          {"first_token_seconds", result.first_token_seconds},
          {"decode_seconds", result.decode_seconds},
          {"peak_rss_bytes", peak_rss_bytes()}};
}

}  // namespace ttpu::cli
