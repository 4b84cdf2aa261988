#include "ttpu/engine/step_messages.h"

#include <cstring>
#include <type_traits>

#include <xxhash.h>

#include "ttpu/base/error.h"

namespace ttpu::engine {
namespace {

// Numbers as they lie in memory: the hosts of a slice are alike.
class Writer {
 public:
  Writer(StepMessage::Kind kind, int32_t runner, const StepsDone& done, size_t room = 0) {
    bytes_.reserve(64 + room);
    number(kind);
    number(runner);
    number(done.steps);
    number(done.digest);
  }
  template <typename T>
  void number(T value) {
    static_assert(std::is_trivially_copyable_v<T>);
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(T));
  }
  template <typename T>
  void list(std::span<const T> values) {
    static_assert(std::is_trivially_copyable_v<T>);
    number(static_cast<uint64_t>(values.size()));
    bytes_.append(reinterpret_cast<const char*>(values.data()), values.size_bytes());
  }
  std::string take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

class Reader {
 public:
  explicit Reader(std::string_view bytes) : left_(bytes) {}
  template <typename T>
  T number() {
    T value;
    std::memcpy(&value, take(1, sizeof(T)), sizeof(T));
    return value;
  }
  template <typename T>
  std::vector<T> list() {
    const auto count = number<uint64_t>();
    const char* from = take(count, sizeof(T));
    std::vector<T> values(static_cast<size_t>(count));
    if (count > 0) std::memcpy(values.data(), from, values.size() * sizeof(T));
    return values;
  }
  void end() const {
    if (!left_.empty()) damaged();
  }
  [[noreturn]] static void damaged() {
    fail(Code::kDataLoss, "[processes] what process 0 said is no step; is `ttpu` the same?");
  }

 private:
  const char* take(uint64_t count, size_t width) {
    if (count > left_.size() / width) damaged();
    const char* at = left_.data();
    left_.remove_prefix(static_cast<size_t>(count) * width);
    return at;
  }
  std::string_view left_;
};

size_t bytes_of(const StepInputs& inputs) {
  size_t numbers = 0;
  for (const ReplicaInputs& replica : inputs.replicas) {
    numbers += 16 + replica.step.size() + replica.bias_tokens.size() + replica.bias_values.size() +
               replica.allowed.size();
  }
  return numbers * 4;
}

void write(Writer& writer, const StepInputs& inputs) {
  writer.number(inputs.program);
  writer.number<uint8_t>(inputs.logprobs ? 1 : 0);
  writer.number(static_cast<uint32_t>(inputs.replicas.size()));
  for (const ReplicaInputs& replica : inputs.replicas) {
    writer.number(replica.rows);
    writer.list<int32_t>(replica.step);
    writer.list<int32_t>(replica.bias_tokens);
    writer.list<float>(replica.bias_values);
    writer.list<uint32_t>(replica.allowed);
  }
}

StepInputs read_inputs(Reader& reader) {
  StepInputs inputs;
  inputs.program = reader.number<int64_t>();
  inputs.logprobs = reader.number<uint8_t>() != 0;
  const auto replicas = reader.number<uint32_t>();
  for (uint32_t i = 0; i < replicas; ++i) {
    ReplicaInputs& replica = inputs.replicas.emplace_back();
    replica.rows = reader.number<int64_t>();
    replica.step = reader.list<int32_t>();
    replica.bias_tokens = reader.list<int32_t>();
    replica.bias_values = reader.list<float>();
    replica.allowed = reader.list<uint32_t>();
  }
  return inputs;
}

}  // namespace

void StepsDone::add(std::span<const int32_t> tokens) {
  ++steps;
  digest = XXH3_64bits_withSeed(tokens.data(), tokens.size_bytes(), digest);
}

StepMessage parse_step_message(std::string_view bytes) {
  Reader reader(bytes);
  StepMessage message;
  const auto kind = reader.number<uint8_t>();
  if (kind > static_cast<uint8_t>(StepMessage::Kind::kEnd)) Reader::damaged();
  message.kind = static_cast<StepMessage::Kind>(kind);
  message.runner = reader.number<int32_t>();
  message.done.steps = reader.number<int64_t>();
  message.done.digest = reader.number<uint64_t>();
  if (message.kind == StepMessage::Kind::kLaunch) {
    message.inputs = read_inputs(reader);
  } else if (message.kind == StepMessage::Kind::kSetHistory) {
    message.replica = reader.number<int32_t>();
    message.slot = reader.number<int32_t>();
    message.prompt = reader.list<int32_t>();
    message.output = reader.list<int32_t>();
  } else if (message.kind == StepMessage::Kind::kCopyBlocks) {
    message.replica = reader.number<int32_t>();
    message.copies = reader.list<BlockCopy>();
  }
  reader.end();
  return message;
}

void StepSender::launch(const StepInputs& inputs) const {
  Writer writer(StepMessage::Kind::kLaunch, runner_, done_, bytes_of(inputs));
  write(writer, inputs);
  send_(writer.take());
}

void StepSender::set_history(int32_t replica, int32_t slot, std::span<const int32_t> prompt,
                             std::span<const int32_t> output) const {
  Writer writer(StepMessage::Kind::kSetHistory, runner_, done_);
  writer.number(replica);
  writer.number(slot);
  writer.list(prompt);
  writer.list(output);
  send_(writer.take());
}

void StepSender::copy_blocks(int32_t replica, std::span<const BlockCopy> copies) const {
  Writer writer(StepMessage::Kind::kCopyBlocks, runner_, done_);
  writer.number(replica);
  writer.list(copies);
  send_(writer.take());
}

void StepSender::reset() const { send_(Writer(StepMessage::Kind::kReset, runner_, done_).take()); }

void StepSender::end() const { send_(Writer(StepMessage::Kind::kEnd, runner_, done_).take()); }

}  // namespace ttpu::engine
