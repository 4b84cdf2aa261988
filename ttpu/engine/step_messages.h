// What the host gives a step, and what the leader's runners say of their steps to those of the
// processes that follow: bytes, in the order of the calls.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ttpu/engine/kv_cache.h"

namespace ttpu::engine {

// What one replica is given.
struct ReplicaInputs {
  int64_t rows = 0;                  // whose tokens are wanted; the bucket may have more
  std::vector<int32_t> step;         // as StepLayout has it
  std::vector<int32_t> bias_tokens;  // [rows of the bucket, EngineShape::biases]; empty: no biases
  std::vector<float> bias_values;    // the same
  std::vector<uint32_t> allowed;     // [rows of the bucket, vocabulary / 32] bits; empty: all
  bool operator==(const ReplicaInputs&) const = default;
};

struct StepInputs {
  int64_t program = 0;  // the place of its bucket among the runner's
  bool logprobs = false;
  std::vector<ReplicaInputs> replicas;
  bool operator==(const StepInputs&) const = default;
};

// How many steps a runner has finished, and a digest of all that they have sampled: the same on
// every process.
struct StepsDone {
  int64_t steps = 0;
  uint64_t digest = 0;
  void add(std::span<const int32_t> tokens);
  bool operator==(const StepsDone&) const = default;
};

struct StepMessage {
  enum class Kind : uint8_t { kLaunch, kSetHistory, kCopyBlocks, kReset, kEnd };
  Kind kind = Kind::kEnd;
  int32_t runner = 0;             // 0: the model's, 1: the draft model's
  StepsDone done;                 // by the leader, when it said this
  StepInputs inputs;              // kLaunch
  int32_t replica = 0;            // kSetHistory, kCopyBlocks
  int32_t slot = 0;               // kSetHistory
  std::vector<int32_t> prompt;    // kSetHistory
  std::vector<int32_t> output;    // kSetHistory
  std::vector<BlockCopy> copies;  // kCopyBlocks
};

// Throws kDataLoss for bytes that are no message.
StepMessage parse_step_message(std::string_view bytes);

// The leader's side: says what one of its runners does. Each call sends one message and waits for
// no answer; throws what sending throws.
class StepSender {
 public:
  using Send = std::function<void(std::string)>;
  StepSender(Send send, int32_t runner) : send_(std::move(send)), runner_(runner) {}

  void launch(const StepInputs& inputs) const;
  void set_history(int32_t replica, int32_t slot, std::span<const int32_t> prompt,
                   std::span<const int32_t> output) const;
  void copy_blocks(int32_t replica, std::span<const BlockCopy> copies) const;
  void reset() const;
  void end() const;
  // A step is done and has sampled these; said with the next message.
  void finished(std::span<const int32_t> tokens) { done_.add(tokens); }

 private:
  Send send_;
  int32_t runner_;
  StepsDone done_;
};

}  // namespace ttpu::engine
