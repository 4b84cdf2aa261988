#include "ttpu/engine/runner.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <future>
#include <thread>

#include <malloc.h>

#include "ttpu/base/error.h"
#include "ttpu/base/log.h"
#include "ttpu/base/thread_time.h"
#include "ttpu/engine/bundle.h"
#include "ttpu/engine/device.h"

namespace ttpu::engine {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Adds the time of its life to a sum of seconds, and what its thread ran meanwhile to another.
class Stopwatch {
 public:
  Stopwatch(double& seconds, double& cpu) : seconds_(seconds), cpu_(cpu) {}
  ~Stopwatch() {
    seconds_ += seconds_since(start_);
    cpu_ += thread_seconds() - cpu_start_;
  }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

 private:
  double& seconds_;
  double& cpu_;
  Clock::time_point start_ = Clock::now();
  double cpu_start_ = thread_seconds();
};

constexpr auto index_of(auto value) { return static_cast<int64_t>(value); }
constexpr int64_t kArguments = index_of(EngineArgument::kNumArguments);
constexpr int64_t kResults = index_of(EngineResult::kNumResults);
constexpr int64_t kFetched = 4;  // tokens and the three of log probabilities

void set_on_all(pjrt::Call& call, int64_t argument, const std::vector<pjrt::Buffer>& buffers) {
  for (size_t device = 0; device < buffers.size(); ++device) {
    call.set_argument(argument, buffers[device], static_cast<int64_t>(device));
  }
}

void take_from_all(pjrt::Call& call, int64_t result, std::vector<pjrt::Buffer>& buffers) {
  for (size_t device = 0; device < buffers.size(); ++device) {
    buffers[device] = call.take_output(result, static_cast<int64_t>(device));
  }
}

}  // namespace

Runner::Runner(const nn::DecoderSpec& spec, const std::filesystem::path& weights,
               const RunnerOptions& options, const Progress& progress)
    : options_(options),
      checkpoint_(io::Checkpoint::open(weights)),
      client_(options.client ? *options.client
                             : make_client(options.device, options.layout.mesh().num_devices())),
      vocab_(spec.vocab),
      groups_(static_cast<int64_t>(options.shape.group_blocks.size())),
      devices_(own_devices(client_, options.layout.mesh())) {
  const parallel::Mesh& mesh = options_.layout.mesh();
  const parallel::Division batch = options_.layout.division("batch");
  replica_devices_.resize(static_cast<size_t>(batch.parts));
  for (size_t device = 0; device < devices_.size(); ++device) {
    const int64_t replica = parallel::part_of(mesh, batch, devices_[device].place);
    replica_devices_[static_cast<size_t>(replica)].push_back(device);
  }
  for (const std::vector<size_t>& devices : replica_devices_) {
    if (!devices.empty()) continue;
    fail(Code::kUnimplemented,
         "[parallel] this process has {} of {} devices and none of some replica, whose tokens it "
         "could not see; lower --data-parallel-size",
         devices_.size(), mesh.num_devices());
  }
  kernels::Target target = target_of(client_, options.custom_calls);
  if (options_.bundle != nullptr) target.tpu = nullptr;  // the bundle has them
  const WeightLoader loader(
      *checkpoint_,
      {options.dtype, options.expand_weights, options.quantization, target.cpu_kernels()},
      spec.name_prefixes);
  load_arguments(kernels::without_refused(target.tpu.get(),
                                          [&] {
                                            EngineProgram program =
                                                build_programs(spec, loader, target);
                                            compile_programs(progress);
                                            return program;
                                          }),
                 loader);
  size_t rows = 0;
  for (const Step& step : steps_) rows = std::max(rows, static_cast<size_t>(step.bucket.rows));
  const size_t replicas = replica_devices_.size();
  const size_t top = rows * static_cast<size_t>(options_.shape.top_logprobs);
  shares_.resize(replicas);
  for (Flight& flight : flights_) {
    flight.inputs.replicas.resize(replicas);
    flight.results.resize(replicas);
    flight.tokens.resize(replicas * rows);
    flight.chosen.resize(replicas * rows);
    flight.top_tokens.resize(replicas * top);
    flight.top.resize(replicas * top);
  }
}

namespace {

bool same_order(const std::vector<nn::WeightDecl>& a, const std::vector<nn::WeightDecl>& b) {
  return std::ranges::equal(a, b, nn::same_weight);
}

}  // namespace

EngineProgram Runner::build_programs(const nn::DecoderSpec& spec, const WeightLoader& loader,
                                     const kernels::Target& target) {
  steps_.clear();
  const nn::FormatOf format = [&](const nn::WeightDecl& decl) { return loader.format_of(decl); };
  const auto build = [&](const Bucket& bucket) {
    return build_engine_program(spec, options_.shape, bucket, target, options_.dtype, format,
                                options_.layout);
  };
  EngineProgram program;
  for (const Bucket& bucket : options_.buckets) {
    const StepLayout layout(options_.shape, bucket);
    steps_.push_back({bucket, layout, Shape(DType::kS32, {layout.total()}), {}, nullptr});
    steps_.back().program.name = program_name(bucket);
    if (options_.bundle != nullptr) continue;
    EngineProgram next = build(bucket);
    // They are called with the same weights, in the order of the first one's declarations.
    require(steps_.size() == 1 || same_order(program.weights, next.weights),
            "[engine] program {} asks for its weights in another order than {}",
            steps_.back().program.name, steps_.front().program.name);
    program = std::move(next);
    steps_.back().program.text = program.module->to_string();
  }
  set_history_.name = kHistoryProgram;
  copy_blocks_.name = kCopyProgram;
  if (options_.bundle != nullptr) {
    const Bundle& bundle = *options_.bundle;
    bundle.check_devices(client_.platform_name(),
                         plugin_fingerprint(client_.plugin(), client_.platform_version()),
                         device_list(kinds_of(client_, options_.layout.mesh())));
    bundle.check_weights(weights_digest(*checkpoint_));
    program = build(options_.buckets.front());  // what it is called with
    bundle.check_program(steps_.front().program.name, program.module->to_string());
  } else {
    set_history_.text =
        build_history_program(options_.shape.slots, vocab_, options_.layout)->to_string();
    copy_blocks_.text =
        build_copy_program(spec, options_.shape, options_.layout, target.platform)->to_string();
    if (target.tpu) {
      for (const auto& choice : target.tpu->choices())
        spdlog::info("[kernels] {}", to_string(choice));
    }
  }
  programs_digest_ = options_.bundle != nullptr ? options_.bundle->fingerprint() : "";
  for (const Step& step : steps_) {
    programs_digest_ = text_digest(programs_digest_ + text_digest(step.program.text));
  }
  program.module.reset();
  program.device = nullptr;
  return program;
}

Json Runner::identity() const {
  return {{"weights", weights_digest(*checkpoint_)},
          {"programs", programs_digest_},
          {"plugin", plugin_fingerprint(client_.plugin(), client_.platform_version())}};
}

// Several at a time: the compiler works on one program in one thread.
void Runner::compile_programs(const Progress& progress) {
  const auto start = Clock::now();
  std::vector<Program*> wanted = {&set_history_, &copy_blocks_};
  for (Step& step : steps_) wanted.push_back(&step.program);
  stats_.programs = static_cast<int64_t>(wanted.size());
  if (options_.lazy) {
    std::erase_if(wanted, [&](Program* program) {
      return options_.bundle != nullptr ||
             is_cached(client_, program->text, options_.layout.mesh());
    });
  }
  std::atomic<size_t> next = 0;
  size_t done = 0;
  const auto work = [&] {
    for (size_t i = next++; i < wanted.size(); i = next++) {
      load(*wanted[i]);
      const std::scoped_lock lock(stats_mutex_);
      if (progress) progress(static_cast<int64_t>(++done), static_cast<int64_t>(wanted.size()));
    }
  };
  const size_t threads =
      std::min<size_t>(wanted.size(), std::clamp(std::thread::hardware_concurrency(), 1U, 8U));
  std::vector<std::future<void>> workers;
  for (size_t i = 1; i < threads; ++i) workers.push_back(std::async(std::launch::async, work));
  if (threads > 0) work();
  for (std::future<void>& worker : workers) worker.get();
  client_.plugin().release_code();  // steps do not run what compiled and loaded them
  stats_.compile_seconds = seconds_since(start);
}

void Runner::load(Program& program) {
  if (program.loaded) return;
  CompiledStep compiled;
  const parallel::Mesh& mesh = options_.layout.mesh();
  if (options_.bundle != nullptr) {
    bool fresh = false;
    compiled.executable = options_.bundle->load(client_, program.name, mesh, &fresh);
    compiled.from_cache = !fresh;
  } else {
    compiled = compile_cached(client_, program.text, mesh);
  }
  program.executable = std::move(compiled.executable);
  program.loaded = true;
  program.text = std::string();
#ifdef __GLIBC__
  malloc_trim(0);  // compiling and loading leave much behind that is free
#endif
  const std::scoped_lock lock(stats_mutex_);
  stats_.compiled += compiled.from_cache ? 0 : 1;
}

void Runner::load_arguments(const EngineProgram& program, const WeightLoader& loader) {
  const auto start = Clock::now();
  loader.check_nothing_left(program.weights);
  const parallel::Mesh& mesh = options_.layout.mesh();
  for (const nn::WeightDecl& decl : program.weights) {
    weights_.push_back(loader.load_parts(decl, mesh, client_, devices_, checkpoint_));
    stats_.weight_bytes += nn::argument_shape(decl).byte_size();
  }
  state_ = program.caches;
  for (const Shape& shape : state_) stats_.cache_bytes += shape.byte_size();
  for (const auto which : {EngineArgument::kLastTokens, EngineArgument::kCounts}) {
    state_.push_back(program.arguments[static_cast<size_t>(which)]);
  }
  make_state();
  for (const Step& step : steps_) {
    const int64_t rows = step.bucket.rows;
    const auto known = [&](const Defaults& defaults) { return defaults.rows == rows; };
    if (std::any_of(defaults_.begin(), defaults_.end(), known)) continue;
    const int64_t words = (vocab_ + 31) / 32;
    const int64_t biases = rows * options_.shape.biases;
    const std::vector<uint32_t> all(static_cast<size_t>(rows * words), ~uint32_t{0});
    const std::vector<int32_t> none(static_cast<size_t>(biases), -1);
    const std::vector<float> nothing(static_cast<size_t>(biases), 0);
    const Shape bias_shape(DType::kS32, {rows, options_.shape.biases});
    defaults_.push_back({rows, copies(all.data(), Shape(DType::kU32, {rows, words})),
                         copies(none.data(), bias_shape),
                         copies(nothing.data(), Shape(DType::kF32, bias_shape.dims))});
  }
  stats_.load_seconds = seconds_since(start);
}

void Runner::make_state() {
  caches_.clear();
  for (size_t i = 0; i + 2 < state_.size(); ++i) caches_.push_back(zeros(state_[i]));
  last_tokens_ = zeros(state_[state_.size() - 2]);
  counts_ = zeros(state_.back());
}

void Runner::reset() {
  if (options_.sender) options_.sender->reset();
  while (in_flight_ > 0) {
    try {
      take_result();
    } catch (const Error&) {  // it has been said why
    }
  }
  make_state();
}

size_t Runner::program_for(int64_t tokens, int64_t sequences, int64_t rows) const {
  const auto found = std::find_if(steps_.begin(), steps_.end(), [&](const Step& step) {
    const Bucket& bucket = step.bucket;
    return bucket.tokens >= tokens && bucket.sequences >= sequences && bucket.rows >= rows;
  });
  if (found == steps_.end()) {
    fail(Code::kInvalidArgument,
         "[engine] no program holds {} tokens of {} sequences with {} rows of logits", tokens,
         sequences, rows);
  }
  return static_cast<size_t>(found - steps_.begin());
}

Runner::Step& Runner::loaded_step(size_t program) {
  Step& step = steps_[program];
  if (step.call) return step;
  if (!step.program.loaded) {
    load(step.program);
    client_.plugin().release_code();
  }
  const auto first_weight = kArguments + static_cast<int64_t>(caches_.size());
  step.call = std::make_unique<pjrt::Call>(step.program.executable,
                                           first_weight + static_cast<int64_t>(weights_.size()));
  for (size_t i = 0; i < weights_.size(); ++i) {
    set_on_all(*step.call, first_weight + static_cast<int64_t>(i), weights_[i]);
  }
  return step;
}

Runner::Buffers Runner::zeros(const Shape& shape) const {
  Buffers buffers;
  for (const OwnDevice& own : devices_) buffers.push_back(client_.zeros(shape, own.device));
  return buffers;
}

Runner::Buffers Runner::copies(const void* data, const Shape& shape) const {
  Buffers buffers;
  for (const OwnDevice& own : devices_) {
    buffers.push_back(client_.to_device(data, shape, own.device));
  }
  return buffers;
}

void Runner::set_history(int32_t replica, int32_t slot, std::span<const int32_t> prompt,
                         std::span<const int32_t> output) {
  if (options_.sender) options_.sender->set_history(replica, slot, prompt, output);
  std::vector<uint16_t> row(static_cast<size_t>(vocab_), 0);
  for (const int32_t token : prompt) row.at(static_cast<size_t>(token)) = 1;
  for (const int32_t token : output) row.at(static_cast<size_t>(token)) += 2;
  load(set_history_);
  const int32_t nowhere = -1;
  Buffers slots = copies(&nowhere, Shape(DType::kS32, {1}));
  for (const size_t device : replica_devices_.at(static_cast<size_t>(replica))) {
    slots[device] = client_.to_device(&slot, Shape(DType::kS32, {1}), devices_[device].device);
  }
  const Buffers values = copies(row.data(), Shape(DType::kU16, {1, vocab_}));
  pjrt::Call call(set_history_.executable, 3);
  set_on_all(call, 0, counts_);
  set_on_all(call, 1, slots);
  set_on_all(call, 2, values);
  call.run();
  take_from_all(call, 0, counts_);
}

void Runner::copy_blocks(int32_t replica, std::span<const BlockCopy> copies) {
  if (options_.sender) options_.sender->copy_blocks(replica, copies);
  const Shape shape = copies_shape(options_.shape);
  std::vector<int32_t> table(static_cast<size_t>(shape.num_elements()), 0);
  const auto count = static_cast<int32_t>(copies.size());
  require(count <= shape.dims[0], "[engine] {} blocks to copy, at most {}", count, shape.dims[0]);
  size_t place = 0;
  for (const BlockCopy& copy : copies) {
    table[place++] = static_cast<int32_t>(copy.group);
    table[place++] = copy.from;
    table[place++] = copy.to;
  }
  load(copy_blocks_);
  const Shape one(DType::kS32, {1});
  const int32_t none = 0;
  Buffers counts = this->copies(&none, one);  // of the other replicas
  for (const size_t device : replica_devices_.at(static_cast<size_t>(replica))) {
    counts[device] = client_.to_device(&count, one, devices_[device].device);
  }
  const Buffers lists = this->copies(table.data(), shape);
  const auto caches = static_cast<int64_t>(caches_.size());
  pjrt::Call call(copy_blocks_.executable, caches + 2);
  for (int64_t i = 0; i < caches; ++i) set_on_all(call, i, caches_[static_cast<size_t>(i)]);
  set_on_all(call, caches, lists);
  set_on_all(call, caches + 1, counts);
  call.run();
  for (int64_t i = 0; i < caches; ++i) take_from_all(call, i, caches_[static_cast<size_t>(i)]);
}

void Runner::upload(Step& step, const ReplicaInputs& inputs, size_t replica) {
  const auto of_rows = [&](const Defaults& defaults) { return defaults.rows == step.bucket.rows; };
  const Defaults& defaults = *std::find_if(defaults_.begin(), defaults_.end(), of_rows);
  pjrt::Call& call = *step.call;
  const std::vector<size_t>& devices = replica_devices_[replica];
  const auto set = [&](EngineArgument which, const Buffers& buffers) {
    for (const size_t device : devices) {
      call.set_argument(index_of(which), buffers[device], static_cast<int64_t>(device));
    }
  };
  const auto send = [&](EngineArgument which, const void* data, const Shape& shape) {
    for (const size_t device : devices) {
      uploads_.push_back(client_.to_device(data, shape, devices_[device].device));
      call.set_argument(index_of(which), uploads_.back(), static_cast<int64_t>(device));
    }
  };
  send(EngineArgument::kStep, inputs.step.data(), step.packed);
  if (inputs.bias_tokens.empty()) {
    set(EngineArgument::kBiasTokens, defaults.bias_tokens);
    set(EngineArgument::kBiasValues, defaults.bias_values);
  } else {
    const Dims dims = {step.bucket.rows, options_.shape.biases};
    send(EngineArgument::kBiasTokens, inputs.bias_tokens.data(), Shape(DType::kS32, dims));
    send(EngineArgument::kBiasValues, inputs.bias_values.data(), Shape(DType::kF32, dims));
  }
  if (inputs.allowed.empty()) {
    set(EngineArgument::kAllowed, defaults.allowed);
  } else {
    const int64_t words = (vocab_ + 31) / 32;
    send(EngineArgument::kAllowed, inputs.allowed.data(),
         Shape(DType::kU32, {step.bucket.rows, words}));
  }
}

Runner::Flight& Runner::next_flight() {
  require(in_flight_ < kMostInFlight, "[engine] {} steps are in flight already", in_flight_);
  return flights_[static_cast<size_t>(launched_ % kMostInFlight)];
}

void Runner::launch(std::span<const Scheduled> items, std::span<const Row> rows, bool logprobs) {
  Flight& flight = next_flight();
  divide(items, rows);
  Bucket needed{0, 0, 0};
  for (const Share& share : shares_) {
    needed.tokens = std::max(needed.tokens, share.tokens);
    needed.sequences = std::max(needed.sequences, static_cast<int64_t>(share.items.size()));
    needed.rows = std::max(needed.rows, static_cast<int64_t>(share.rows.size()));
  }
  const size_t program = program_for(needed.tokens, needed.sequences, needed.rows);
  flight.inputs.program = static_cast<int64_t>(program);
  flight.inputs.logprobs = logprobs;
  for (size_t replica = 0; replica < shares_.size(); ++replica) {
    fill_step(steps_[program], shares_[replica], logprobs, flight.inputs.replicas[replica]);
  }
  if (options_.sender) options_.sender->launch(flight.inputs);
  start(flight);
}

void Runner::launch(StepInputs inputs) {
  Flight& flight = next_flight();
  check(inputs);
  flight.inputs = std::move(inputs);
  start(flight);
}

void Runner::start(Flight& flight) {
  Step& step = loaded_step(static_cast<size_t>(flight.inputs.program));
  const Stopwatch watch(times_.dispatch, times_.cpu);
  uploads_.clear();
  uploads_.reserve(4 * devices_.size());
  for (size_t replica = 0; replica < flight.inputs.replicas.size(); ++replica) {
    upload(step, flight.inputs.replicas[replica], replica);
  }
  pjrt::Call& call = *step.call;
  set_on_all(call, index_of(EngineArgument::kLastTokens), last_tokens_);
  set_on_all(call, index_of(EngineArgument::kCounts), counts_);
  for (size_t i = 0; i < caches_.size(); ++i) {
    set_on_all(call, kArguments + static_cast<int64_t>(i), caches_[i]);
  }
  call.run();
  take_from_all(call, index_of(EngineResult::kLastTokens), last_tokens_);
  take_from_all(call, index_of(EngineResult::kCounts), counts_);
  for (size_t i = 0; i < caches_.size(); ++i) {
    take_from_all(call, kResults + static_cast<int64_t>(i), caches_[i]);
  }
  fetch(step, flight);
  ++launched_;
  ++in_flight_;
}

// Starts the transfers of what the host wants to see, of each replica from its first device. Whole
// results arrive one after another; finish() brings the rows together.
void Runner::fetch(Step& step, Flight& flight) {
  const auto rows = static_cast<size_t>(step.bucket.rows);
  const size_t top = rows * static_cast<size_t>(options_.shape.top_logprobs);
  flight.events.clear();
  flight.padded_rows = rows;
  const size_t logits = rows * static_cast<size_t>(vocab_);
  flight.rows = 0;
  if (options_.shape.logits) flight.logits.resize(flight.results.size() * logits);
  for (size_t replica = 0; replica < flight.results.size(); ++replica) {
    flight.rows += static_cast<size_t>(flight.inputs.replicas[replica].rows);
    const auto device = static_cast<int64_t>(replica_devices_[replica][0]);
    const auto start = [&](int64_t result, size_t place, auto& to, size_t count) {
      pjrt::Buffer& from = flight.results[replica][place];
      from = step.call->take_output(result, device);
      flight.events.push_back(
          from.to_host(to.data() + replica * count, static_cast<int64_t>(count * 4)));
    };
    start(index_of(EngineResult::kTokens), 0, flight.tokens, rows);
    if (flight.inputs.logprobs) {
      start(index_of(EngineResult::kLogprobs), 1, flight.chosen, rows);
      start(index_of(EngineResult::kTopTokens), 2, flight.top_tokens, top);
      start(index_of(EngineResult::kTopLogprobs), 3, flight.top, top);
    }
    if (options_.shape.logits) {
      start(kResults + static_cast<int64_t>(caches_.size()), kFetched, flight.logits, logits);
    }
  }
}

// Moves the rows of all replicas together; `width` numbers a row.
template <typename T>
void Runner::close_gaps(const Flight& flight, size_t width, std::vector<T>& values) {
  size_t to = 0;
  for (size_t replica = 0; replica < flight.inputs.replicas.size(); ++replica) {
    const size_t from = replica * flight.padded_rows * width;
    const size_t count = static_cast<size_t>(flight.inputs.replicas[replica].rows) * width;
    if (from != to) std::copy_n(values.data() + from, count, values.data() + to);
    to += count;
  }
}

void Runner::await(const Flight& flight) {
  const Stopwatch watch(times_.waiting, times_.cpu);
  std::exception_ptr error;  // all are awaited: they write into the flight's memory
  for (const pjrt::Event& event : flight.events) {
    try {
      event.wait();
    } catch (const Error&) {
      error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
}

StepResult Runner::finish() {
  const StepResult result = take_result();
  if (options_.sender) options_.sender->finished(result.tokens);
  return result;
}

StepResult Runner::take_result() {
  require(in_flight_ > 0, "[engine] no step is in flight");
  Flight& flight = flights_[static_cast<size_t>((launched_ - in_flight_) % kMostInFlight)];
  --in_flight_;
  await(flight);
  if (flight.results.size() > 1) {
    const auto most = static_cast<size_t>(options_.shape.top_logprobs);
    close_gaps(flight, 1, flight.tokens);
    if (flight.inputs.logprobs) {
      close_gaps(flight, 1, flight.chosen);
      close_gaps(flight, most, flight.top_tokens);
      close_gaps(flight, most, flight.top);
    }
    if (options_.shape.logits) close_gaps(flight, static_cast<size_t>(vocab_), flight.logits);
  }
  StepResult result;
  result.tokens = std::span(flight.tokens).first(flight.rows);
  if (flight.inputs.logprobs) {
    const size_t top = flight.rows * static_cast<size_t>(options_.shape.top_logprobs);
    result.logprobs = std::span(flight.chosen).first(flight.rows);
    result.top_tokens = std::span(flight.top_tokens).first(top);
    result.top_logprobs = std::span(flight.top).first(top);
  }
  if (options_.shape.logits) {
    result.logits = std::span(flight.logits).first(flight.rows * static_cast<size_t>(vocab_));
  }
  return result;
}

}  // namespace ttpu::engine
