#include "ttpu/engine/model.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "ttpu/base/error.h"
#include "ttpu/base/log.h"
#include "ttpu/models/registry.h"

namespace ttpu::engine {
namespace {

constexpr int64_t kPageSize = 64;
constexpr int64_t kDefaultLength = 4096;

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

kernels::Target target_of(const pjrt::Client& client, bool custom_calls) {
  kernels::Target target;
  const std::string platform = client.platform_name();
  target.platform = platform == "cpu"   ? kernels::Platform::kCpu
                    : platform == "tpu" ? kernels::Platform::kTpu
                                        : kernels::Platform::kCuda;
  target.custom_calls = custom_calls && target.platform == kernels::Platform::kCpu &&
                        kernels::register_cpu_kernels(client.plugin());
  return target;
}

pjrt::Client make_client(const std::string& device) {
  return pjrt::Client::create(pjrt::load_plugin(pjrt::find_plugin(device)));
}

}  // namespace

Model::Model(const Json& config, const std::filesystem::path& weights, const ModelOptions& options)
    : spec_(models::decoder_from_config(config)),
      checkpoint_(io::Checkpoint::open(weights)),
      client_(make_client(options.device)) {
  const int64_t allowed = spec_.max_positions;
  require(options.max_model_len <= allowed,
          "[engine] --max-model-len is {}, the model allows at most {} tokens",
          options.max_model_len, allowed);
  max_model_len_ =
      options.max_model_len > 0 ? options.max_model_len : std::min(allowed, kDefaultLength);
  const WeightLoader loader(*checkpoint_, options.dtype, options.expand_weights,
                            spec_.name_prefixes);
  compile_steps(options, loader);
  logits_.resize(static_cast<size_t>(spec_.vocab));
}

void Model::compile_steps(const ModelOptions& options, const WeightLoader& loader) {
  const kernels::Target target = target_of(client_, options.custom_calls);
  std::vector<int64_t> buckets = {1};
  for (const int64_t bucket : options.prefill_buckets) {
    buckets.push_back(bucket);
    if (bucket >= max_model_len_) break;
  }
  const nn::FormatOf format = [&](const nn::WeightDecl& decl) { return loader.format_of(decl); };
  const int64_t pages = (max_model_len_ + kPageSize - 1) / kPageSize;
  StepProgram program;
  auto start = Clock::now();
  for (const int64_t tokens : buckets) {
    const StepShape shape{.tokens = tokens,
                          .sequences = 1,
                          .pages_per_sequence = pages,
                          .pages = pages,
                          .page_size = kPageSize,
                          .rows = 1};
    program = build_step_program(spec_, shape, target, options.dtype, options.dtype, format);
    CompiledStep compiled = compile_cached(client_, program.module->to_string());
    stats_.compiled += compiled.from_cache ? 0 : 1;
    Step& step = steps_[tokens];
    step.shape = shape;
    step.executable = std::move(compiled.executable);
    ++stats_.programs;
  }
  stats_.compile_seconds = seconds_since(start);
  start = Clock::now();
  load_weights(program.weights, loader);
  reset_caches(program.caches);
  stats_.load_seconds = seconds_since(start);
  for (auto& [tokens, step] : steps_) {
    const auto arguments =
        static_cast<int64_t>(kNumStepArguments + caches_.size() + weights_.size());
    step.call = std::make_unique<pjrt::Call>(step.executable, arguments);
    for (size_t i = 0; i < weights_.size(); ++i) {
      step.call->set_argument(static_cast<int64_t>(kNumStepArguments + caches_.size() + i),
                              weights_[i]);
    }
  }
}

void Model::load_weights(const std::vector<nn::WeightDecl>& decls, const WeightLoader& loader) {
  for (const nn::WeightDecl& decl : decls) {
    weights_.push_back(loader.load(decl, client_, checkpoint_));
    stats_.weight_bytes += nn::argument_shape(decl).byte_size();
  }
}

void Model::reset_caches(const std::vector<Shape>& shapes) {
  for (const Shape& shape : shapes) {
    caches_.push_back(client_.zeros(shape, client_.devices().at(0)));
  }
}

Model::Step& Model::step_for(size_t tokens) {
  for (auto& [bucket, step] : steps_) {
    if (bucket >= static_cast<int64_t>(tokens)) return step;
  }
  return steps_.rbegin()->second;  // the largest, several times
}

void Model::truncate(int64_t length) {
  require(length >= 0 && length <= length_, "[engine] cannot keep {} of {} tokens", length,
          length_);
  length_ = length;
}

std::span<float> Model::append(std::span<const int32_t> tokens) {
  require(!tokens.empty(), "[engine] no tokens were given");
  const int64_t total = length_ + static_cast<int64_t>(tokens.size());
  if (total > max_model_len_) {
    fail(Code::kOutOfRange,
         "[engine] the sequence would have {} tokens, the limit is {}; shorten the prompt or raise "
         "--max-model-len (the model allows {})",
         total, max_model_len_, spec_.max_positions);
  }
  pjrt::Buffer logits;
  while (!tokens.empty()) {
    Step& step = step_for(tokens.size());
    const size_t count = std::min(tokens.size(), static_cast<size_t>(step.shape.tokens));
    logits = run(step, tokens.first(count));
    tokens = tokens.subspan(count);
  }
  logits.to_host(logits_.data(), static_cast<int64_t>(logits_.size() * sizeof(float))).wait();
  return logits_;
}

pjrt::Buffer Model::run(Step& step, std::span<const int32_t> tokens) {
  const auto count = static_cast<int32_t>(tokens.size());
  const auto bucket = static_cast<size_t>(step.shape.tokens);
  std::vector<int32_t> padded(bucket, 0);
  std::vector<int32_t> positions(bucket, 0);
  for (size_t i = 0; i < tokens.size(); ++i) {
    require(tokens[i] >= 0 && tokens[i] < spec_.vocab, "[engine] token {} is outside [0, {})",
            tokens[i], spec_.vocab);
    padded[i] = tokens[i];
    positions[i] = static_cast<int32_t>(length_) + static_cast<int32_t>(i);
  }
  std::vector<int32_t> pages(static_cast<size_t>(step.shape.pages_per_sequence));
  for (size_t i = 0; i < pages.size(); ++i) pages[i] = static_cast<int32_t>(i);
  const bool decode = count == 1;
  const std::vector<std::vector<int32_t>> inputs = {
      std::move(padded), std::move(positions), {static_cast<int32_t>(length_) + count},
      std::move(pages),  {0, count},           {decode ? 1 : 0, decode ? 1 : 0, 1},
      {count - 1}};
  std::vector<pjrt::Buffer> uploaded;
  for (size_t i = 0; i < inputs.size(); ++i) {
    uploaded.push_back(client_.to_device(
        inputs[i].data(), Shape(DType::kS32, {static_cast<int64_t>(inputs[i].size())})));
    step.call->set_argument(static_cast<int64_t>(i), uploaded.back());
  }
  for (size_t i = 0; i < caches_.size(); ++i) {
    step.call->set_argument(static_cast<int64_t>(kNumStepArguments + i), caches_[i]);
  }
  step.call->run();
  for (size_t i = 0; i < caches_.size(); ++i) {
    caches_[i] = step.call->take_output(static_cast<int64_t>(1 + i));
  }
  length_ += count;
  return step.call->take_output(0);
}

}  // namespace ttpu::engine
