#include "ttpu/engine/runner.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <chrono>
#include <future>
#include <thread>

#include <malloc.h>

#include "ttpu/base/error.h"
#include "ttpu/engine/device.h"
#include "ttpu/ir/ir.h"

namespace ttpu::engine {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

constexpr auto index_of(auto value) { return static_cast<int64_t>(value); }
constexpr int64_t kArguments = index_of(EngineArgument::kNumArguments);
constexpr int64_t kResults = index_of(EngineResult::kNumResults);
constexpr int64_t kFetched = 4;  // tokens and the three of log probabilities

// counts[slot] = row, in place.
std::string history_program(int64_t slots, int64_t vocab) {
  ir::Module module("ttpu_set_history");
  ir::Function& function = module.add_function("main");
  const ir::Value counts = function.add_argument(Shape(DType::kU16, {slots, vocab}), "counts");
  const ir::Value slot = function.add_argument(Shape(DType::kS32, {}), "slot");
  const ir::Value row = function.add_argument(Shape(DType::kU16, {1, vocab}), "row");
  function.alias(counts, 0);
  const ir::Value zero = ir::scalar(function, DType::kS32, 0);
  function.set_results({ir::dynamic_update_slice(counts, row, {slot, zero})});
  return module.to_string();
}

int32_t bits(double value) { return std::bit_cast<int32_t>(static_cast<float>(value)); }

// What stands at a position: known, a draft, or known to the device alone.
int32_t token_at(const Sequence& sequence, int64_t position) {
  const auto known = static_cast<int64_t>(sequence.tokens.size());
  if (position < known) return sequence.tokens[static_cast<size_t>(position)];
  const auto draft = static_cast<size_t>(position - known);
  return draft < sequence.drafts.size() ? sequence.drafts[draft] : -1 - sequence.slot;
}

}  // namespace

Runner::Runner(const nn::DecoderSpec& spec, const std::filesystem::path& weights,
               const RunnerOptions& options, const Progress& progress)
    : options_(options),
      checkpoint_(io::Checkpoint::open(weights)),
      client_(make_client(options.device)),
      vocab_(spec.vocab),
      groups_(static_cast<int64_t>(options.shape.group_blocks.size())) {
  const WeightLoader loader(*checkpoint_, options.dtype, options.expand_weights,
                            spec.name_prefixes);
  build_programs(spec, loader);
  compile_programs(progress);
  size_t rows = 0;
  for (const Step& step : steps_) rows = std::max(rows, static_cast<size_t>(step.bucket.rows));
  const size_t top = rows * static_cast<size_t>(options_.shape.top_logprobs);
  for (Flight& flight : flights_) {
    flight.tokens.resize(rows);
    flight.chosen.resize(rows);
    flight.top_tokens.resize(top);
    flight.top.resize(top);
  }
}

void Runner::build_programs(const nn::DecoderSpec& spec, const WeightLoader& loader) {
  const kernels::Target target = target_of(client_, options_.custom_calls);
  const nn::FormatOf format = [&](const nn::WeightDecl& decl) { return loader.format_of(decl); };
  EngineProgram program;
  for (const Bucket& bucket : options_.buckets) {
    program = build_engine_program(spec, options_.shape, bucket, target, options_.dtype, format);
    steps_.push_back({bucket, StepLayout(options_.shape, bucket), {}, nullptr});
    steps_.back().program.text = program.module->to_string();
  }
  set_history_.text = history_program(options_.shape.slots, vocab_);
  load_arguments(program, loader);
}

// Several at a time: the compiler works on one program in one thread.
void Runner::compile_programs(const Progress& progress) {
  const auto start = Clock::now();
  std::vector<Program*> wanted = {&set_history_};
  for (Step& step : steps_) wanted.push_back(&step.program);
  stats_.programs = static_cast<int64_t>(wanted.size());
  if (options_.lazy) {
    std::erase_if(wanted, [&](Program* program) { return is_cached(client_, program->text); });
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
  stats_.compile_seconds = seconds_since(start);
}

void Runner::load(Program& program) {
  if (program.loaded) return;
  CompiledStep compiled = compile_cached(client_, program.text);
  program.executable = std::move(compiled.executable);
  program.loaded = true;
  program.text = std::string();
  // Compiling and loading leave much behind that is free, and ran code that steps do not run.
#ifdef __GLIBC__
  malloc_trim(0);
#endif
  client_.plugin().release_code();
  const std::scoped_lock lock(stats_mutex_);
  stats_.compiled += compiled.from_cache ? 0 : 1;
}

void Runner::load_arguments(const EngineProgram& program, const WeightLoader& loader) {
  const auto start = Clock::now();
  loader.check_nothing_left(program.weights);
  for (const nn::WeightDecl& decl : program.weights) {
    weights_.push_back(loader.load(decl, client_, checkpoint_));
    stats_.weight_bytes += nn::argument_shape(decl).byte_size();
  }
  const pjrt::Device device = client_.devices().at(0);
  for (const Shape& shape : program.caches) {
    caches_.push_back(client_.zeros(shape, device));
    stats_.cache_bytes += shape.byte_size();
  }
  const auto argument = [&](EngineArgument which) {
    return program.arguments[static_cast<size_t>(which)];
  };
  last_tokens_ = client_.zeros(argument(EngineArgument::kLastTokens), device);
  counts_ = client_.zeros(argument(EngineArgument::kCounts), device);
  for (const Step& step : steps_) {
    const int64_t rows = step.bucket.rows;
    const auto known = [&](const Defaults& defaults) { return defaults.rows == rows; };
    if (std::any_of(defaults_.begin(), defaults_.end(), known)) continue;
    const int64_t words = (vocab_ + 31) / 32;
    const int64_t biases = rows * options_.shape.biases;
    const std::vector<uint32_t> all(static_cast<size_t>(rows * words), ~uint32_t{0});
    const std::vector<int32_t> none(static_cast<size_t>(biases), -1);
    const std::vector<float> zeros(static_cast<size_t>(biases), 0);
    const Shape bias_shape(DType::kS32, {rows, options_.shape.biases});
    defaults_.push_back({rows, client_.to_device(all.data(), Shape(DType::kU32, {rows, words})),
                         client_.to_device(none.data(), bias_shape),
                         client_.to_device(zeros.data(), Shape(DType::kF32, bias_shape.dims))});
  }
  stats_.load_seconds = seconds_since(start);
}

Runner::Step& Runner::step_for(int64_t tokens, int64_t sequences, int64_t rows) {
  const auto found = std::find_if(steps_.begin(), steps_.end(), [&](const Step& step) {
    const Bucket& bucket = step.bucket;
    return bucket.tokens >= tokens && bucket.sequences >= sequences && bucket.rows >= rows;
  });
  if (found == steps_.end()) {
    fail(Code::kInvalidArgument,
         "[engine] no program holds {} tokens of {} sequences with {} rows of logits", tokens,
         sequences, rows);
  }
  if (found->call) return *found;
  load(found->program);
  const auto first_weight = kArguments + static_cast<int64_t>(caches_.size());
  found->call = std::make_unique<pjrt::Call>(found->program.executable,
                                             first_weight + static_cast<int64_t>(weights_.size()));
  for (size_t i = 0; i < weights_.size(); ++i) {
    found->call->set_argument(first_weight + static_cast<int64_t>(i), weights_[i]);
  }
  return *found;
}

void Runner::set_history(int32_t slot, std::span<const int32_t> prompt,
                         std::span<const int32_t> output) {
  std::vector<uint16_t> row(static_cast<size_t>(vocab_), 0);
  for (const int32_t token : prompt) row[static_cast<size_t>(token)] = 1;
  for (const int32_t token : output) row[static_cast<size_t>(token)] += 2;
  const pjrt::Buffer where = client_.to_device(&slot, Shape(DType::kS32, {}));
  const pjrt::Buffer values = client_.to_device(row.data(), Shape(DType::kU16, {1, vocab_}));
  const std::array<const pjrt::Buffer*, 3> arguments = {&counts_, &where, &values};
  load(set_history_);
  counts_ = std::move(set_history_.executable.execute(arguments)[0]);
}

void Runner::fill_step(const Step& step, std::span<const Scheduled> items,
                       std::span<const Row> rows, bool logprobs,
                       std::vector<int32_t>& packed) const {
  const StepLayout& layout = step.layout;
  const Bucket& bucket = step.bucket;
  packed.assign(static_cast<size_t>(layout.total()), 0);
  const auto field = [&](StepField which) { return packed.data() + layout.offset(which); };
  int32_t* tokens = field(StepField::kTokens);
  int32_t* positions = field(StepField::kPositions);
  int32_t* kv_lens = field(StepField::kKvLens);
  int32_t* cu_q_lens = field(StepField::kCuQLens);
  int32_t* pages = field(StepField::kPages);
  int32_t count = 0;
  int32_t decodes = 0;
  for (size_t s = 0; s < items.size(); ++s) {
    const Scheduled& item = items[s];
    const Sequence& sequence = *item.sequence;
    for (int64_t i = item.first; i < item.first + item.count; ++i) {
      positions[count] = static_cast<int32_t>(i);
      tokens[count++] = token_at(sequence, i);
    }
    kv_lens[s] = static_cast<int32_t>(item.first + item.count);
    cu_q_lens[s + 1] = count;
    if (item.count == 1 && decodes == static_cast<int32_t>(s)) ++decodes;
    for (int64_t g = 0; g < groups_; ++g) {
      int32_t* table = pages + (g * bucket.sequences + static_cast<int64_t>(s)) *
                                   options_.shape.blocks_per_sequence;
      const std::vector<int32_t>& blocks = sequence.blocks[static_cast<size_t>(g)];
      for (size_t b = 0; b < blocks.size(); ++b) table[b] = std::max(blocks[b], 0);
    }
  }
  std::fill(cu_q_lens + items.size() + 1, cu_q_lens + bucket.sequences + 1, count);
  int32_t* distribution = field(StepField::kDistribution);
  distribution[0] = distribution[1] = decodes;
  distribution[2] = static_cast<int32_t>(items.size());
  *field(StepField::kLogprobs) = logprobs ? 1 : 0;
  fill_rows(step, rows, packed);
}

void Runner::fill_rows(const Step& step, std::span<const Row> rows,
                       std::vector<int32_t>& packed) const {
  const auto field = [&](StepField which) { return packed.data() + step.layout.offset(which); };
  static const SamplingParams kGreedy;
  for (size_t r = 0; r < static_cast<size_t>(step.bucket.rows); ++r) {
    const Row padding;
    const Row& row = r < rows.size() ? rows[r] : padding;
    const SamplingParams& params = row.sampling == nullptr ? kGreedy : *row.sampling;
    field(StepField::kRows)[r] = static_cast<int32_t>(row.token);
    field(StepField::kRowSlots)[r] = row.slot;
    field(StepField::kRowTargets)[r] = row.target;
    field(StepField::kTemperature)[r] = bits(params.temperature);
    field(StepField::kTopK)[r] = static_cast<int32_t>(params.top_k);
    field(StepField::kTopP)[r] = bits(params.top_p);
    field(StepField::kMinP)[r] = bits(params.min_p);
    field(StepField::kSeeds)[2 * r] = static_cast<int32_t>(params.seed & 0xffffffff);
    field(StepField::kSeeds)[2 * r + 1] = static_cast<int32_t>(params.seed >> 32);
    field(StepField::kSamplePosition)[r] = static_cast<int32_t>(row.position);
    field(StepField::kHistorySlots)[r] = params.has_penalties() ? row.slot : -1;
    field(StepField::kRepetition)[r] = bits(params.repetition_penalty);
    field(StepField::kFrequency)[r] = bits(params.frequency_penalty);
    field(StepField::kPresence)[r] = bits(params.presence_penalty);
  }
}

void Runner::upload(Step& step, Flight& flight, std::span<const Row> rows) {
  const auto of_rows = [&](const Defaults& defaults) { return defaults.rows == step.bucket.rows; };
  const Defaults& defaults = *std::find_if(defaults_.begin(), defaults_.end(), of_rows);
  pjrt::Call& call = *step.call;
  const auto set = [&](EngineArgument which, const pjrt::Buffer& buffer) {
    call.set_argument(index_of(which), buffer);
  };
  const auto send = [&](EngineArgument which, const void* data, const Shape& shape) {
    uploads_.push_back(client_.to_device(data, shape));
    set(which, uploads_.back());
  };
  uploads_.clear();
  send(EngineArgument::kStep, flight.step.data(),
       Shape(DType::kS32, {static_cast<int64_t>(flight.step.size())}));
  set(EngineArgument::kAllowed, defaults.allowed);
  set(EngineArgument::kBiasTokens, defaults.bias_tokens);
  set(EngineArgument::kBiasValues, defaults.bias_values);

  const auto width = static_cast<size_t>(options_.shape.biases);
  const auto words = static_cast<size_t>((vocab_ + 31) / 32);
  const auto padded = static_cast<size_t>(step.bucket.rows);
  if (std::any_of(rows.begin(), rows.end(), [](const Row& row) {
        return !row.bias.empty() || (row.sampling != nullptr && !row.sampling->logit_bias.empty());
      })) {
    flight.bias_tokens.assign(padded * width, -1);
    flight.bias_values.assign(padded * width, 0);
    for (size_t r = 0; r < rows.size(); ++r) {
      size_t next = r * width;
      const auto add = [&](std::span<const std::pair<int32_t, float>> biases) {
        for (const auto& [token, value] : biases) {
          require(next < (r + 1) * width, "[engine] more than {} biased tokens", width);
          flight.bias_tokens[next] = token;
          flight.bias_values[next++] = value;
        }
      };
      if (rows[r].sampling != nullptr) add(rows[r].sampling->logit_bias);
      add(rows[r].bias);
    }
    const Dims dims = {step.bucket.rows, options_.shape.biases};
    send(EngineArgument::kBiasTokens, flight.bias_tokens.data(), Shape(DType::kS32, dims));
    send(EngineArgument::kBiasValues, flight.bias_values.data(), Shape(DType::kF32, dims));
  }
  if (std::any_of(rows.begin(), rows.end(), [](const Row& row) { return !row.allowed.empty(); })) {
    flight.allowed.assign(padded * words, ~uint32_t{0});
    for (size_t r = 0; r < rows.size(); ++r) {
      std::copy(rows[r].allowed.begin(), rows[r].allowed.end(),
                flight.allowed.begin() + static_cast<std::ptrdiff_t>(r * words));
    }
    send(EngineArgument::kAllowed, flight.allowed.data(),
         Shape(DType::kU32, {step.bucket.rows, static_cast<int64_t>(words)}));
  }
}

void Runner::launch(std::span<const Scheduled> items, std::span<const Row> rows, bool logprobs) {
  require(in_flight_ < kMostInFlight, "[engine] {} steps are in flight already", in_flight_);
  int64_t tokens = 0;
  for (const Scheduled& item : items) tokens += item.count;
  Step& step =
      step_for(tokens, static_cast<int64_t>(items.size()), static_cast<int64_t>(rows.size()));
  Flight& flight = flights_[static_cast<size_t>(launched_ % kMostInFlight)];
  flight.rows = rows.size();
  flight.logprobs = logprobs;
  fill_step(step, items, rows, logprobs, flight.step);
  upload(step, flight, rows);
  pjrt::Call& call = *step.call;
  call.set_argument(index_of(EngineArgument::kLastTokens), last_tokens_);
  call.set_argument(index_of(EngineArgument::kCounts), counts_);
  for (size_t i = 0; i < caches_.size(); ++i) {
    call.set_argument(kArguments + static_cast<int64_t>(i), caches_[i]);
  }
  call.run();
  last_tokens_ = call.take_output(index_of(EngineResult::kLastTokens));
  counts_ = call.take_output(index_of(EngineResult::kCounts));
  for (size_t i = 0; i < caches_.size(); ++i) {
    caches_[i] = call.take_output(kResults + static_cast<int64_t>(i));
  }
  fetch(step, flight);
  ++launched_;
  ++in_flight_;
}

// Starts the transfers of what the host wants to see.
void Runner::fetch(Step& step, Flight& flight) {
  const auto rows = static_cast<size_t>(step.bucket.rows);
  const size_t top = rows * static_cast<size_t>(options_.shape.top_logprobs);
  flight.events.clear();
  const auto start = [&](int64_t result, size_t place, void* to, size_t count) {
    flight.results[place] = step.call->take_output(result);
    flight.events.push_back(flight.results[place].to_host(to, static_cast<int64_t>(count * 4)));
  };
  start(index_of(EngineResult::kTokens), 0, flight.tokens.data(), rows);
  if (flight.logprobs) {
    start(index_of(EngineResult::kLogprobs), 1, flight.chosen.data(), rows);
    start(index_of(EngineResult::kTopTokens), 2, flight.top_tokens.data(), top);
    start(index_of(EngineResult::kTopLogprobs), 3, flight.top.data(), top);
  }
  if (options_.shape.logits) {
    flight.logits.resize(rows * static_cast<size_t>(vocab_));
    start(kResults + static_cast<int64_t>(caches_.size()), kFetched, flight.logits.data(),
          flight.logits.size());
  }
}

StepResult Runner::finish() {
  require(in_flight_ > 0, "[engine] no step is in flight");
  Flight& flight = flights_[static_cast<size_t>((launched_ - in_flight_) % kMostInFlight)];
  --in_flight_;
  for (const pjrt::Event& event : flight.events) event.wait();
  StepResult result;
  result.tokens = std::span(flight.tokens).first(flight.rows);
  if (flight.logprobs) {
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
