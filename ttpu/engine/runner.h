// The device's side of the engine: weights, caches, the compiled programs of all buckets, and the
// steps that run. Steps run in the order of their launches; two may be in flight.
#pragma once

#include <array>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "ttpu/engine/engine_program.h"
#include "ttpu/engine/executable_cache.h"
#include "ttpu/engine/request.h"
#include "ttpu/engine/scheduler.h"
#include "ttpu/engine/step_messages.h"
#include "ttpu/engine/weight_loader.h"
#include "ttpu/io/checkpoint.h"

namespace ttpu::engine {

class Bundle;

struct RunnerOptions {
  std::string device = "cpu";                         // a plugin's name or path
  std::optional<pjrt::Client> client = std::nullopt;  // one of it; without, one is made
  DType dtype = DType::kBF16;                         // of activations: kBF16 or kF32
  bool expand_weights = false;  // encoded weights become dense bf16 when they are loaded
  std::string quantization;     // EngineOptions::quantization
  bool custom_calls = true;     // false: pure StableHLO, no kernels of ours
  // Programs that were compiled before are loaded when they are first needed, and not at the start.
  bool lazy = false;
  parallel::Layout layout;
  std::shared_ptr<const Bundle> bundle = nullptr;  // has the programs
  EngineShape shape;                               // of one replica
  std::vector<Bucket> buckets;
  std::shared_ptr<StepSender> sender = nullptr;  // told of all that changes the device; null: none
};

struct LoadStats {
  double load_seconds = 0;     // weights
  double compile_seconds = 0;  // or loading compiled programs
  int64_t programs = 0;
  int64_t compiled = 0;      // not found in the cache
  int64_t weight_bytes = 0;  // of one device
  int64_t cache_bytes = 0;
};

// Seconds of the thread that launches and finishes steps.
struct StepTimes {
  double dispatch = 0;  // in the plugin: giving it inputs, starting programs, asking for results
  double waiting = 0;   // for steps to be done
  double cpu = 0;       // of both, what the thread was running
  StepTimes& operator+=(const StepTimes& more) {
    dispatch += more.dispatch;
    waiting += more.waiting;
    cpu += more.cpu;
    return *this;
  }
};

// A token of the step whose logits are wanted.
struct Row {
  int64_t token = 0;                         // index in the flat batch
  int32_t slot = -1;                         // where the sampled token is kept
  int32_t target = -1;                       // its log probability is wanted; -1: the sampled one's
  const SamplingParams* sampling = nullptr;  // null: greedy
  int64_t position = 0;                      // which token of the request is sampled
  std::span<const std::pair<int32_t, float>> bias;  // besides sampling->logit_bias
  std::span<const uint32_t> allowed;                // a bit a token; empty: all
};

struct StepResult {
  std::span<const int32_t> tokens;  // one a row
  // Empty unless the step was launched with log probabilities.
  std::span<const float> logprobs;
  std::span<const int32_t> top_tokens;  // [rows, top_logprobs]
  std::span<const float> top_logprobs;
  std::span<const float> logits;  // with EngineShape::logits
};

// Told how many of how many programs are ready.
using Progress = std::function<void(int64_t done, int64_t total)>;

class Runner {
 public:
  static constexpr int64_t kMostInFlight = 2;

  Runner(const nn::DecoderSpec& spec, const std::filesystem::path& weights,
         const RunnerOptions& options, const Progress& progress = {});

  const LoadStats& stats() const { return stats_; }
  const StepTimes& times() const { return times_; }
  int64_t vocab() const { return vocab_; }
  const EngineShape& shape() const { return options_.shape; }
  // What must be the same in processes that run the same steps, by name.
  Json identity() const;

  // The counts of tokens that penalties see, for a sequence that comes into a slot; to be called
  // before the launch of its first step.
  void set_history(int32_t replica, int32_t slot, std::span<const int32_t> prompt,
                   std::span<const int32_t> output);
  // Copies blocks of a replica's caches, one after the other, before the step that is launched
  // next.
  void copy_blocks(int32_t replica, std::span<const BlockCopy> copies);
  // Starts a step: the items of each replica after those of the one before it, decodes first; rows
  // in the order of their items. Throws kInvalidArgument when no bucket holds it.
  void launch(std::span<const Scheduled> items, std::span<const Row> rows, bool logprobs);
  // The same from what another runner with the same options has made of it. Throws kInvalidArgument
  // for what is not of this runner's programs.
  void launch(StepInputs inputs);
  int64_t in_flight() const { return in_flight_; }
  // Waits for the oldest step. Valid until the launch after the next. Throws what the plugin says
  // when the step has failed; what is on the device is lost then.
  StepResult finish();
  // After a failure: waits for what still runs, and begins with empty caches.
  void reset();

 private:
  struct Program {
    std::string name;  // in a bundle
    std::string text;  // without one
    pjrt::LoadedExecutable executable;
    bool loaded = false;
  };
  struct Step {
    Bucket bucket;
    StepLayout layout;
    Shape packed;  // of what is uploaded
    Program program;
    std::unique_ptr<pjrt::Call> call;
  };
  // One replica's part of a step that is being made.
  struct Share {
    std::span<const Scheduled> items;
    std::span<const Row> rows;
    int64_t first_token = 0;  // of the flat batch of all
    int64_t tokens = 0;
  };
  struct Flight {
    StepInputs inputs;
    size_t rows = 0;                                   // of all replicas
    size_t padded_rows = 0;                            // of each replica in what was fetched
    std::vector<std::array<pjrt::Buffer, 5>> results;  // of each replica
    std::vector<int32_t> tokens, top_tokens;
    std::vector<float> chosen, top, logits;
    std::vector<pjrt::Event> events;
  };

  // What all programs are called with; the module is gone.
  EngineProgram build_programs(const nn::DecoderSpec& spec, const WeightLoader& loader,
                               const kernels::Target& target);
  void compile_programs(const Progress& progress);
  void load(Program& program);
  void load_arguments(const EngineProgram& program, const WeightLoader& loader);
  void make_state();
  size_t program_for(int64_t tokens, int64_t sequences, int64_t rows) const;
  Step& loaded_step(size_t program);
  Flight& next_flight();
  void divide(std::span<const Scheduled> items, std::span<const Row> rows);
  void fill_step(const Step& step, const Share& share, bool logprobs, ReplicaInputs& inputs) const;
  void fill_rows(const Step& step, const Share& share, ReplicaInputs& inputs) const;
  void fill_biases(const Step& step, std::span<const Row> rows, ReplicaInputs& inputs) const;
  void fill_allowed(const Step& step, std::span<const Row> rows, ReplicaInputs& inputs) const;
  void check(const StepInputs& inputs) const;
  void upload(Step& step, const ReplicaInputs& inputs, size_t replica);
  void start(Flight& flight);
  void fetch(Step& step, Flight& flight);
  void await(const Flight& flight);
  StepResult take_result();
  template <typename T>
  static void close_gaps(const Flight& flight, size_t width, std::vector<T>& values);

  RunnerOptions options_;
  std::shared_ptr<const io::Checkpoint> checkpoint_;
  pjrt::Client client_;
  int64_t vocab_;
  int64_t groups_;
  LoadStats stats_;
  std::mutex stats_mutex_;
  std::vector<Step> steps_;  // small buckets first
  std::string programs_digest_;
  Program set_history_;
  Program copy_blocks_;
  // One buffer a device of this process.
  using Buffers = std::vector<pjrt::Buffer>;
  Buffers zeros(const Shape& shape) const;
  Buffers copies(const void* data, const Shape& shape) const;
  std::vector<OwnDevice> devices_;                    // of this process
  std::vector<std::vector<size_t>> replica_devices_;  // of each replica, places in `devices_`
  std::vector<Buffers> weights_;
  std::vector<Shape> state_;  // of the caches, then of the two after them
  std::vector<Buffers> caches_;
  Buffers last_tokens_;
  Buffers counts_;
  std::vector<pjrt::Buffer> uploads_;  // of the step that was launched last
  // What rows without bias and mask bring, by rows of the bucket.
  struct Defaults {
    int64_t rows;
    Buffers allowed, bias_tokens, bias_values;
  };
  std::vector<Defaults> defaults_;
  std::vector<Share> shares_;  // of the step that is being made, one a replica
  std::array<Flight, kMostInFlight> flights_;
  StepTimes times_;
  int64_t launched_ = 0;
  int64_t in_flight_ = 0;
};

}  // namespace ttpu::engine
