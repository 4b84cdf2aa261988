// A model's programs compiled for TPUs that this machine need not have. No weights are needed.
#pragma once

#include <string>

#include "ttpu/base/json.h"
#include "ttpu/engine/step_program.h"
#include "ttpu/plan/report.h"

namespace ttpu::engine {

enum class Phase { kPrefill, kDecode };

struct AotRequest {
  Json config;  // config.json
  std::string topology;
  Phase phase = Phase::kDecode;
  int64_t max_model_len = 0;     // 0: what the model allows, to 4096
  int64_t batch = 1;             // sequences that the cache holds and that decode together
  int64_t prefill_tokens = 512;  // of one prefill step
  DType dtype = DType::kBF16;    // of weights, activations and cache
  nn::Layers layers = nn::Layers::kUnrolled;
};

// Divides weights and caches over a mesh of `devices`, tensor parallel: attention by heads, MLPs by
// their inner dimension, experts among the devices, embedding and head by vocabulary. What does not
// divide evenly is replicated. Gives the divisor of each of the program's arguments.
std::vector<int64_t> shard_tensor_parallel(const nn::DecoderSpec& spec, StepProgram& program,
                                           int64_t devices);

// Compiles one program with libtpu, in this process, which grows by it and keeps what it took: run
// it in a child process. Throws kInvalidArgument for a topology that does not exist,
// kResourceExhausted for a program that does not fit, kNotFound without a plugin.
plan::ProgramReport compile_ahead(const AotRequest& request);

}  // namespace ttpu::engine
