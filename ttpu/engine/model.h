// A model that runs: weights on the device, compiled steps, and one sequence's cache. The smallest
// form of the engine.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "ttpu/engine/executable_cache.h"
#include "ttpu/engine/step_program.h"
#include "ttpu/engine/weight_loader.h"
#include "ttpu/io/checkpoint.h"

namespace ttpu::engine {

struct ModelOptions {
  std::string device = "cpu";   // a plugin's name or path
  DType dtype = DType::kBF16;   // of activations: kBF16 or kF32
  bool expand_weights = false;  // encoded weights become dense bf16 when they are loaded
  bool custom_calls = true;     // false: pure StableHLO, no kernels of ours
  int64_t max_model_len = 0;    // tokens of prompt and answer; 0: what the model allows, to 4096
  std::vector<int64_t> prefill_buckets = {32, 256, 1024};
};

struct LoadStats {
  double load_seconds = 0;     // weights
  double compile_seconds = 0;  // or loading compiled programs
  int64_t programs = 0;
  int64_t compiled = 0;  // not found in the cache
  int64_t weight_bytes = 0;
};

class Model {
 public:
  // `config` is config.json; `weights` where the tensors lie.
  Model(const Json& config, const std::filesystem::path& weights, const ModelOptions& options);

  int64_t vocab() const { return spec_.vocab; }
  int64_t max_model_len() const { return max_model_len_; }
  int64_t length() const { return length_; }  // tokens in the cache
  const LoadStats& stats() const { return stats_; }

  // Forgets all tokens but the first `length`.
  void truncate(int64_t length);
  // Appends tokens to the sequence and gives the logits [vocab] after the last; valid until the
  // next call. Throws kOutOfRange when the sequence would pass max_model_len.
  std::span<float> append(std::span<const int32_t> tokens);

 private:
  struct Step {
    StepShape shape;
    pjrt::LoadedExecutable executable;
    std::unique_ptr<pjrt::Call> call;
  };
  void compile_steps(const ModelOptions& options, const WeightLoader& loader);
  void load_weights(const std::vector<nn::WeightDecl>& decls, const WeightLoader& loader);
  void reset_caches(const std::vector<Shape>& shapes);
  // Gives the logits, still on the device.
  pjrt::Buffer run(Step& step, std::span<const int32_t> tokens);
  Step& step_for(size_t tokens);

  nn::DecoderSpec spec_;
  std::shared_ptr<const io::Checkpoint> checkpoint_;
  pjrt::Client client_;
  int64_t max_model_len_ = 0;
  int64_t length_ = 0;
  LoadStats stats_;
  std::map<int64_t, Step> steps_;  // by tokens
  std::vector<pjrt::Buffer> weights_;
  std::vector<pjrt::Buffer> caches_;
  std::vector<float> logits_;
};

}  // namespace ttpu::engine
