// Flags that the commands which run a model share.
#pragma once

#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "ttpu/engine/generator.h"

namespace ttpu::cli {

struct ModelFlags {
  std::string model;
  std::string device = "cpu";
  std::string dtype = "bf16";
  std::string weights = "auto";
  bool no_kernels = false;
  bool stats = false;
  int64_t max_model_len = 0;
  int64_t max_num_seqs = 1;
  int64_t num_speculative_tokens = 0;
  engine::SamplingParams sampling;
};

// `sampling.max_tokens` and `sampling.temperature` keep what they are set to as defaults.
void add_model_flags(CLI::App& command, ModelFlags* flags);
engine::EngineOptions engine_options(const ModelFlags& flags);
engine::Generator load_generator(const ModelFlags& flags);
engine::Engine load_engine(const ModelFlags& flags);
// To standard error: load, compile, time to first token, tokens a second, peak memory.
void print_stats(const engine::Engine& engine, const engine::GenerationResult& result,
                 size_t prompt_tokens);

// The same as an object: seconds and bytes.
Json stats_json(const engine::Engine& engine, const engine::GenerationResult& result);

}  // namespace ttpu::cli
