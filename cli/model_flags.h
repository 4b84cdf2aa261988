// Flags that the commands which run a model share.
#pragma once

#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "ttpu/engine/embedder.h"
#include "ttpu/engine/generator.h"

namespace ttpu::cli {

// What a model is loaded from, and how.
struct LoadFlags {
  std::string model;
  std::string dtype = "auto";  // bf16, and f32 for embeddings
  std::string weights = "auto";
  std::string cache_dtype = "auto";
  std::string speculative_config;
  bool no_kernels = false;
  engine::EngineOptions engine;  // what the flags above decide is set by engine_options()
  const CLI::App* command = nullptr;
};

// config.json of a model, or a config's own .json file: what is compiled or planned without
// weights.
Json read_config(const std::string& model);

// The model's path; with a bundle and no model, that of the bundle.
std::filesystem::path model_path(const LoadFlags& flags);
// With a bundle, `options` as it was compiled; what was asked for otherwise is refused.
engine::EngineOptions with_bundle(const LoadFlags& flags, const engine::EngineOptions& options);

// Those that --strategy may name, beside "auto" where a command has that.
std::vector<std::string> strategy_names();

// vLLM's: --tensor-parallel-size and its like. `parallel_arguments` writes them for a child.
void add_parallel_flags(CLI::App& command, engine::ParallelOptions* flags);
std::vector<std::string> parallel_arguments(const engine::ParallelOptions& options);

// vLLM's --kv-cache-dtype and --quantization.
void add_cache_dtype_flag(CLI::App& command, std::string* name);
void add_quantization_flag(CLI::App& command, std::string* quantization);

void add_load_flags(CLI::App& command, LoadFlags* flags);
engine::EngineOptions engine_options(const LoadFlags& flags);
// What of the flags is meant for a model that embeds.
engine::EmbedderOptions embedder_options(const LoadFlags& flags);

// The same with how tokens are chosen.
struct ModelFlags : LoadFlags {
  ModelFlags() { engine.lazy_programs = true; }
  bool stats = false;
  engine::SamplingParams sampling;
};

// `sampling.max_tokens` and `sampling.temperature` keep what they are set to as defaults.
void add_model_flags(CLI::App& command, ModelFlags* flags);
// To standard error: load, compile, time to first token, tokens a second, peak memory.
void print_stats(const engine::Engine& engine, const engine::GenerationResult& result,
                 size_t prompt_tokens);

// The same as an object: seconds and bytes.
Json stats_json(const engine::Engine& engine, const engine::GenerationResult& result);

}  // namespace ttpu::cli
