// Requests in, tokens out: continuous batching over a paged cache. A library of its own; the
// server, the command line and Python are clients of it.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "ttpu/base/error.h"
#include "ttpu/engine/draft_model.h"
#include "ttpu/engine/kv_cache.h"
#include "ttpu/engine/parallel_plan.h"
#include "ttpu/engine/request.h"
#include "ttpu/engine/runner.h"
#include "ttpu/engine/scheduler.h"
#include "ttpu/engine/speculation.h"
#include "ttpu/engine/structured_output.h"
#include "ttpu/engine/text_processor.h"
#include "ttpu/text/detokenizer.h"
#include "ttpu/text/stop_matcher.h"

namespace ttpu::parallel {
class ControlPlane;
}

namespace ttpu::engine {

struct EngineOptions {
  std::string device = "cpu";             // a plugin's name or path
  DType dtype = DType::kBF16;             // of activations: kBF16 or kF32
  std::optional<DType> cache_dtype = {};  // as cache_dtype_of() gives it
  bool expand_weights = false;            // encoded weights become dense bf16 when they are loaded
  // "int8", "fp8" or "int4": linear layers are quantized when they are loaded (vLLM's
  // --quantization); empty: weights are as the checkpoint has them.
  std::string quantization;
  bool custom_calls = true;   // false: pure StableHLO, no kernels of ours
  int64_t max_model_len = 0;  // tokens of prompt and answer; 0: what the model allows, to 4096
  int64_t max_num_seqs = 1;   // that run at once
  int64_t max_num_batched_tokens = 1024;  // of one step
  int64_t block_size = 64;
  int64_t num_blocks = 0;        // of the layers that see everything; 0: by memory_fraction
  double memory_fraction = 0.9;  // of the memory that is left, at most so much for the cache
  bool prefix_caching = true;
  bool lazy_programs = false;  // RunnerOptions::lazy
  // Who works on text is told that the model has no tokenizer before anything is loaded.
  bool needs_tokenizer = false;
  SpeculationOptions speculation = {};
  ParallelOptions parallel = {};
  // A folder that build_bundle made: its programs are loaded and none is compiled. What it was
  // compiled for takes the place of the options that decide what programs are (Bundle::options).
  std::filesystem::path bundle = {};
  // One engine over all its processes, which are given the same options: that of process 0 is used
  // as any other is, those of the others follow(). Null: this process alone.
  std::shared_ptr<parallel::ControlPlane> control = nullptr;
};

// Counts since the start; read from any thread.
struct EngineMetrics {
  std::atomic<int64_t> steps{0};
  // How many steps had at most so many tokens, and more than the bound before; the last ones more
  // than any.
  static constexpr std::array<int64_t, 13> kStepTokens = {1,   8,    16,   32,   64,   128,  256,
                                                          512, 1024, 2048, 4096, 8192, 16384};
  std::array<std::atomic<int64_t>, kStepTokens.size() + 1> steps_by_tokens{};
  std::atomic<int64_t> step_tokens{0};  // of all steps
  void observe_step(int64_t tokens) {
    const auto place = std::lower_bound(kStepTokens.begin(), kStepTokens.end(), tokens);
    ++steps_by_tokens[static_cast<size_t>(place - kStepTokens.begin())];
    step_tokens += tokens;
  }
  std::atomic<int64_t> prompt_tokens{0};
  std::atomic<int64_t> generation_tokens{0};
  std::atomic<int64_t> cached_tokens{0};  // of prompts, found in the cache
  std::atomic<int64_t> preemptions{0};
  std::atomic<int64_t> finished{0};
  std::atomic<int64_t> drafts{0};                 // times that a sequence had any
  std::atomic<int64_t> draft_tokens{0};           // guessed
  std::atomic<int64_t> accepted_draft_tokens{0};  // and right
  std::atomic<double> speculation_speed_up{0};    // SpeculationGovernor::speed_up()
  std::atomic<int64_t> failed_steps{0};
  std::atomic<int64_t> running{0};
  std::atomic<int64_t> waiting{0};
  std::atomic<double> cache_usage{0};
  // In step(), without waiting for the device: scheduling, the inputs of steps, masks, drafts by
  // lookup, what becomes of sampled tokens, and the callbacks.
  std::atomic<double> host_seconds{0};
  std::atomic<double> dispatch_seconds{0};  // of these, StepTimes::dispatch
  // What the thread ran in step() outside the plugin: host_seconds without dispatch_seconds, and
  // without what other threads (of a device that is the same processor) took away from it.
  std::atomic<double> engine_cpu_seconds{0};
};

class Engine {
 public:
  // `path` is a folder in Hugging Face layout or a .gguf file. With EngineOptions::control all
  // processes wait for each other; throws kFailedPrecondition, with both values and both hosts,
  // where model, options, programs or plugin are not the same.
  Engine(const std::filesystem::path& path, const EngineOptions& options,
         const Progress& progress = {});
  ~Engine();

  // Throws kInvalidArgument for what the request has wrong, kOutOfRange for a prompt that is too
  // long.
  void check(const Request& request) const;
  // From any thread; may take a second. Throws kInvalidArgument for what cannot be compiled.
  std::shared_ptr<const text::Grammar> compile_grammar(const StructuredOutputsParams& params) const;
  // From any thread; throws as check(), and as compile_grammar(). `on_output` is called by step(),
  // until it has finished.
  int64_t submit(Request request, OutputCallback on_output);
  // From any thread. The request ends with FinishReason::kAborted, unless it has ended already.
  void abort(int64_t request);

  // Starts the next step and finishes the one before it. False when there is nothing to do. From
  // one thread at a time. When the plugin fails a step, all requests that have something on the
  // device end with FinishReason::kError, and the engine goes on with empty caches; throws when it
  // cannot. Throws kUnavailable when a process that follows is lost.
  bool step();

  // Others follow this process: step() is to be called now and then even when there is nothing to
  // do, so that it is noticed when one is lost.
  bool leads() const;
  // This process follows process 0, and has no requests of its own.
  bool follows() const;
  // Does the steps of process 0 until that ends; returns how many. Throws kUnavailable when a
  // process is lost, what the plugin says when a step fails here alone, and kDataLoss when a step
  // has sampled other tokens here.
  int64_t follow();

  const TextProcessor& text() const { return text_; }
  const io::ModelFiles& files() const { return files_; }
  const LoadStats& stats() const { return runner_->stats(); }
  const EngineMetrics& metrics() const { return metrics_; }
  // Programs that were compiled once the constructor was done; stays 0.
  int64_t compilations_after_start() const { return compiled() - compiled_at_start_; }
  int64_t vocab() const { return runner_->vocab(); }
  int64_t max_model_len() const { return options_.max_model_len; }
  const EngineOptions& options() const { return options_; }

 private:
  struct Live;
  int64_t compiled() const { return stats().compiled + (draft_ ? draft_->stats().compiled : 0); }
  struct Launched {
    std::vector<Scheduled> items;
    std::vector<Row> rows;
    std::vector<size_t> row_items;  // which item each row belongs to
    bool logprobs = false;
    std::chrono::steady_clock::time_point start;
  };

  void agree_on_model(const std::filesystem::path& path, const std::filesystem::path& draft) const;
  void agree_on_programs() const;
  std::shared_ptr<StepSender> add_sender();
  void end_senders();
  void take_inbox();
  int32_t least_busy_replica() const;
  bool launch_and_finish();
  void update_times(std::chrono::steady_clock::time_point start, double cpu_start);
  void update_gauges();
  void find_leader(Live& live);
  bool launch();
  bool launch_scheduled(std::chrono::steady_clock::time_point start);
  void recover(const Error& error);
  void add_rows(Launched& step, size_t item, int64_t first_token);
  void finish_step();
  void propose_drafts();
  void prepare_masks();
  void end_with_error(Live& live, const Error& error);
  void judge_speculation(const Launched& step, int64_t tokens);
  std::span<const int32_t> take_sampled(const Launched& step, const StepResult& result, size_t item,
                                        size_t& row, RequestOutput& output);
  void set_step_bias(Live& live) const;
  void advance(Live& live, std::span<const int32_t> tokens, RequestOutput& output);
  void collect_logprobs(const Launched& step, const StepResult& result, size_t row,
                        RequestOutput& output);
  void end(Live& live, RequestOutput& output, FinishReason reason);
  void forget_if_done(Live& live);
  bool is_end(const Live& live, int32_t token) const;

  EngineOptions options_;
  io::ModelFiles files_;
  TextProcessor text_;
  // Of the model, each with sequences of its own.
  struct Replica {
    std::unique_ptr<KvCache> cache;
    std::unique_ptr<Scheduler> scheduler;
  };
  Scheduler& scheduler_of(const Sequence& sequence) {
    return *replicas_[static_cast<size_t>(sequence.replica)].scheduler;
  }
  std::vector<Replica> replicas_;
  std::unique_ptr<text::GrammarCompiler> grammars_;  // none: the model has no tokenizer
  MaskWorkers mask_workers_;
  std::vector<Live*> masks_due_;                      // whose masks are made next, together
  std::vector<std::shared_ptr<StepSender>> senders_;  // of the leader's runners
  std::unique_ptr<Runner> runner_;
  std::unique_ptr<DraftModel> draft_;  // null: guesses by lookup
  std::vector<DraftModel::Wanted> wanted_drafts_;
  std::unordered_map<int64_t, std::unique_ptr<Live>> live_;
  std::array<Launched, Runner::kMostInFlight> launched_;
  int64_t launches_ = 0;
  int64_t leader_ = 0;  // the request that was submitted last with a prompt of its own
  int64_t compiled_at_start_ = 0;
  SpeculationGovernor governor_;
  std::chrono::steady_clock::time_point last_finish_;
  std::vector<int32_t> sampled_;  // of the item that is being finished
  RequestOutput output_;          // of it, too: a steady step allocates nothing
  StepTimes times_;               // as of the last step()
  EngineMetrics metrics_;

  std::mutex mutex_;  // of what follows
  std::vector<std::unique_ptr<Live>> submitted_;
  std::vector<int64_t> aborted_;
  int64_t next_id_ = 1;
};

}  // namespace ttpu::engine
