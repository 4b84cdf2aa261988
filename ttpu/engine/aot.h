// A model's programs compiled for TPUs and GPUs that this machine need not have. No weights are
// needed.
#pragma once

#include <filesystem>
#include <string>

#include "ttpu/base/json.h"
#include "ttpu/engine/engine_plan.h"
#include "ttpu/pjrt/topology.h"
#include "ttpu/plan/report.h"

namespace ttpu::engine {

enum class Phase { kPrefill, kDecode };

struct CompileWith {
  std::string xla_flags = {};           // for the compiler, as in XLA_FLAGS
  std::filesystem::path hlo_file = {};  // where the scheduled program goes; empty: nowhere
};

struct AotRequest {
  Json config;                         // config.json
  std::filesystem::path weights = {};  // a GGUF file, whose blocks say what programs take
  std::string topology;
  Phase phase = Phase::kDecode;
  EngineOptions engine;  // dtype, lengths and sizes of batches; its device is the topology
  nn::Layers layers = nn::Layers::kUnrolled;
  int64_t first_layers = 0;  // only so many of the model's layers; 0: all
  CompileWith with = {};
};

// Compiles one of the engine's programs, that of its largest bucket of the phase, with the plugin's
// compiler, in this process, which grows by it and keeps what it took: run it in a child process.
// Throws kInvalidArgument for a topology that does not exist, kResourceExhausted for a program that
// does not fit, kNotFound without a plugin.
plan::ProgramReport compile_ahead(const AotRequest& request);

// The end of it, for a program of any kind: adds what the compiler says of it to a report that has
// its topology, its arguments' bytes and what was counted in the program itself.
void compile_module(const ir::Module& module, const pjrt::Topology& topology,
                    const parallel::Mesh& mesh, const CompileWith& with,
                    plan::ProgramReport* report);

// "v5e:2x2" or "h100:8". Throws kInvalidArgument for one that neither we nor the plugin know.
pjrt::Topology create_topology(const std::string& name);
kernels::Platform platform_of_topology(const std::string& name);
// Bytes of a device of a TPU topology; 0 of another.
int64_t tpu_memory(const std::string& topology);
// The plugin that compiles for it: "tpu" or "cuda".
std::string plugin_of_topology(const std::string& name);
// What programs for it may call; with `custom_calls` false, no kernels of ours.
kernels::Target target_of_topology(const std::string& name, bool custom_calls);

}  // namespace ttpu::engine
