#include "ttpu/engine/engine.h"

#include <algorithm>
#include <chrono>

#include "ttpu/base/error.h"
#include "ttpu/base/thread_time.h"
#include "ttpu/engine/bundle.h"
#include "ttpu/engine/engine_plan.h"
#include "ttpu/engine/followers.h"
#include "ttpu/engine/live_request.h"
#include "ttpu/io/hub.h"
#include "ttpu/models/registry.h"
#include "ttpu/parallel/control/control_plane.h"

namespace ttpu::engine {
namespace {

using Clock = std::chrono::steady_clock;

constexpr float kForbidden = -std::numeric_limits<float>::infinity();

// Empty: without one.
std::filesystem::path draft_path_of(const EngineOptions& options) {
  const SpeculationOptions& speculation = options.speculation;
  if (speculation.model.empty()) return {};
  require(speculation.num_speculative_tokens > 0,
          "[engine] a draft model is given, but --num-speculative-tokens is 0");
  return io::resolve_model(speculation.model);
}

DraftModelOptions draft_options(const nn::DecoderSpec& spec, const EnginePlan& plan) {
  DraftModelOptions draft;
  draft.vocab = spec.vocab;
  draft.max_model_len = plan.options.max_model_len;
  draft.max_num_seqs = plan.options.max_num_seqs;
  draft.max_num_batched_tokens = plan.options.max_num_batched_tokens;
  draft.block_size = plan.options.block_size;
  draft.cache_dtype = plan.shape.cache_dtype;
  draft.runner.dtype = plan.options.dtype;
  draft.runner.expand_weights = plan.options.expand_weights;
  draft.runner.quantization = plan.options.quantization;
  return draft;
}

// What the caches of all devices may take together: the same on every process.
int64_t cache_memory(const std::filesystem::path& path, const nn::DecoderSpec& spec,
                     const EngineOptions& options, const pjrt::Client& client,
                     const kernels::Target& target, int64_t devices) {
  const int64_t bytes = cache_budget(options, client, devices, [&] {
    const auto checkpoint = io::Checkpoint::open(path);
    const WeightOptions weights{options.dtype, options.expand_weights, options.quantization,
                                target.cpu_kernels()};
    return weight_bytes(spec, options, target,
                        format_of_weights(*checkpoint, weights, spec.name_prefixes));
  });
  return options.control == nullptr ? bytes : smallest(*options.control, "cache", bytes);
}

}  // namespace

Engine::Engine(const std::filesystem::path& path, const EngineOptions& options,
               const Progress& progress)
    : options_(options), files_(io::load_model_files(path)), text_(files_) {
  if (options.needs_tokenizer) text_.tokenizer();  // throws where there is none
  const nn::DecoderSpec spec = models::decoder_from_config(files_.config);
  std::shared_ptr<const Bundle> bundle;
  if (!options.bundle.empty()) {
    bundle = Bundle::open(options.bundle);
    bundle->check_model(config_digest(files_.config));
    options_ = bundle->options(options, {});
  }
  const std::filesystem::path draft_path = draft_path_of(options);
  if (options.control != nullptr) agree_on_model(path, draft_path);
  const int64_t devices = choose_layout(spec, options_.parallel).mesh().num_devices();
  const pjrt::Client client = make_client(options.device, devices, options.memory_fraction);
  const kernels::Target target = target_of(client, options_.custom_calls);
  EnginePlan plan;
  if (bundle != nullptr) {
    plan = bundle->plan(spec, options_);
  } else {
    const EngineOptions wanted = settled(spec, options, 0, tpu_memory(client));
    const int64_t memory = cache_memory(path, spec, wanted, client, target, devices);
    plan = plan_engine(spec, wanted, memory, 0, target.platform);
    if (!draft_path.empty()) {
      const int64_t bytes = DraftModel::bytes(draft_path, draft_options(spec, plan), target);
      plan = plan_engine(spec, wanted, memory - bytes, 0, target.platform);
    }
  }
  const DraftModelOptions planned = draft_options(spec, plan);
  require(draft_path.empty() || plan.layout.one_device(),
          "[engine] a draft model guesses on one device, here are {}",
          plan.layout.mesh().num_devices());
  options_ = plan.options;
  RunnerOptions runner{.device = options.device,
                       .client = client,
                       .dtype = options_.dtype,
                       .expand_weights = options_.expand_weights,
                       .quantization = options_.quantization,
                       .custom_calls = options_.custom_calls,
                       .lazy = options.lazy_programs,
                       .layout = plan.layout,
                       .bundle = bundle,
                       .shape = plan.shape,
                       .buckets = plan.buckets,
                       .sender = add_sender()};
  const int64_t rows = options_.max_num_seqs * (1 + options_.speculation.num_speculative_tokens);
  for (int64_t i = 0; i < plan.layout.replicas(); ++i) {
    Replica replica;
    replica.cache =
        std::make_unique<KvCache>(plan.groups, options_.block_size, options.prefix_caching);
    replica.scheduler = std::make_unique<Scheduler>(
        SchedulerOptions{options_.max_num_seqs, options_.max_num_batched_tokens, rows},
        *replica.cache);
    replicas_.push_back(std::move(replica));
  }
  runner_ = std::make_unique<Runner>(spec, path, runner, progress);
  if (text_.has_tokenizer()) {
    grammars_ =
        std::make_unique<text::GrammarCompiler>(text_.tokenizer(), vocab(), text_.end_tokens());
  }
  if (!draft_path.empty()) {
    DraftModelOptions draft = planned;
    draft.runner = runner;
    draft.runner.bundle = nullptr;
    draft.runner.sender = add_sender();
    draft_ = std::make_unique<DraftModel>(draft_path, draft, progress);
  }
  if (options.control != nullptr) agree_on_programs();
  compiled_at_start_ = compiled();
}

Engine::~Engine() {
  while (runner_ && runner_->in_flight() > 0) {
    try {
      runner_->finish();
    } catch (const Error&) {  // nobody asks any more
    }
  }
  end_senders();
}

void Engine::check(const Request& request) const {
  const SamplingParams& sampling = request.sampling;
  validate(sampling, vocab());
  if (!sampling.stop.empty()) text_.tokenizer();  // they need text
  // All that may change logits in one step, as add_rows() gathers it.
  size_t biases = sampling.logit_bias.size() + sampling.bad_words.size();
  if (sampling.min_tokens > 0) biases += text_.end_tokens().size() + sampling.stop_token_ids.size();
  require(biases <= static_cast<size_t>(kMostBiases),
          "[sampling] logit_bias, bad_words and the end tokens that min_tokens forbids are {} "
          "together, at most {}; give fewer",
          biases, kMostBiases);
  require(!request.prompt.empty(), "[generate] the prompt has no tokens; give some text");
  for (const int32_t token : request.prompt) {
    require(token >= 0 && token < vocab(),
            "[generate] the prompt has token {}, the model's vocabulary is [0, {}); check that the "
            "tokenizer is that of the weights",
            token, vocab());
  }
  const auto length = static_cast<int64_t>(request.prompt.size());
  if (length >= max_model_len()) {
    fail(Code::kOutOfRange,
         "[generate] the prompt has {} tokens, and prompt and answer together may have {}; shorten "
         "the prompt or raise --max-model-len",
         length, max_model_len());
  }
}

std::shared_ptr<const text::Grammar> Engine::compile_grammar(
    const StructuredOutputsParams& params) const {
  text_.tokenizer();  // throws where there is none
  return engine::compile_grammar(*grammars_, params);
}

int64_t Engine::submit(Request request, OutputCallback on_output) {
  check(request);
  if (request.sampling.structured_outputs && request.grammar == nullptr) {
    request.grammar = compile_grammar(*request.sampling.structured_outputs);
  }
  auto live = std::make_unique<Live>(std::move(request), std::move(on_output), text_);
  const Request& given = live->request;
  const SamplingParams& sampling = given.sampling;
  live->priority = given.priority;
  live->tokens = given.prompt;
  live->prompt_length = static_cast<int64_t>(given.prompt.size());
  live->max_length =
      live->prompt_length + std::min(sampling.max_tokens, max_model_len() - live->prompt_length);
  live->salt = salt_hash(given.cache_salt);
  live->wants_all_rows = sampling.prompt_logprobs >= 0;
  live->reuse = !live->wants_all_rows;
  live->tokens.reserve(static_cast<size_t>(live->max_length));
  if (sampling.min_tokens > 0) {
    for (const int32_t token : text_.end_tokens()) {
      live->early_bias.emplace_back(token, kForbidden);
    }
    for (const int32_t token : sampling.stop_token_ids) {
      live->early_bias.emplace_back(token, kForbidden);
    }
  }
  live->synchronous = std::any_of(sampling.bad_words.begin(), sampling.bad_words.end(),
                                  [](const auto& word) { return word.size() > 1; });
  if (given.grammar != nullptr) {
    live->constraint = std::make_unique<Constraint>(given.grammar);
    live->synchronous = true;
  }
  const std::scoped_lock lock(mutex_);
  const int64_t id = live->id = next_id_++;
  submitted_.push_back(std::move(live));
  return id;
}

void Engine::abort(int64_t request) {
  const std::scoped_lock lock(mutex_);
  aborted_.push_back(request);
}

void Engine::take_inbox() {
  std::vector<std::unique_ptr<Live>> submitted;
  std::vector<int64_t> aborted;
  {
    const std::scoped_lock lock(mutex_);
    submitted.swap(submitted_);
    aborted.swap(aborted_);
  }
  for (std::unique_ptr<Live>& live : submitted) {
    find_leader(*live);
    live->replica = live->leader != nullptr ? live->leader->replica : least_busy_replica();
    scheduler_of(*live).add(*live);
    live_.emplace(live->id, std::move(live));
  }
  for (const int64_t id : aborted) {
    const auto found = live_.find(id);
    if (found == live_.end() || found->second->finished) continue;
    RequestOutput output;
    output.request = id;
    end(*found->second, output, FinishReason::kAborted);
    found->second->on_output(output);
    forget_if_done(*found->second);
  }
}

// Several answers to one prompt come one after the other: the first computes it for all.
void Engine::find_leader(Live& live) {
  if (!options_.prefix_caching || !live.reuse) return;
  const auto found = live_.find(leader_);
  const bool fits = found != live_.end() && !found->second->finished && found->second->reuse &&
                    found->second->priority <= live.priority && found->second->salt == live.salt &&
                    found->second->request.prompt == live.request.prompt;
  if (fits) {
    live.leader = found->second.get();
  } else {
    leader_ = live.id;
  }
}

bool Engine::step() {
  const auto start = Clock::now();
  const double cpu_start = thread_seconds();
  if (leads()) options_.control->check();
  const bool worked = launch_and_finish();
  update_times(start, cpu_start);
  return worked;
}

bool Engine::launch_and_finish() {
  take_inbox();
  const int64_t failed = metrics_.failed_steps;
  const bool launched = launch();
  if (runner_->in_flight() == 0) return failed != metrics_.failed_steps;
  if (!launched || runner_->in_flight() == Runner::kMostInFlight) finish_step();
  update_gauges();
  return true;
}

// All that is not waiting for the device is the host's.
void Engine::update_times(Clock::time_point start, double cpu_start) {
  StepTimes times = runner_->times();
  if (draft_) times += draft_->times();
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  metrics_.host_seconds = metrics_.host_seconds + seconds - (times.waiting - times_.waiting);
  metrics_.dispatch_seconds = times.dispatch;
  const double cpu = thread_seconds() - cpu_start;
  metrics_.engine_cpu_seconds = metrics_.engine_cpu_seconds + cpu - (times.cpu - times_.cpu);
  times_ = times;
}

int32_t Engine::least_busy_replica() const {
  const auto load = [](const Replica& replica) {
    return replica.scheduler->running() + replica.scheduler->waiting();
  };
  const auto least =
      std::min_element(replicas_.begin(), replicas_.end(),
                       [&](const Replica& a, const Replica& b) { return load(a) < load(b); });
  return static_cast<int32_t>(least - replicas_.begin());
}

void Engine::update_gauges() {
  int64_t running = 0;
  int64_t waiting = 0;
  int64_t preemptions = 0;
  double usage = 0;
  for (const Replica& replica : replicas_) {
    running += replica.scheduler->running();
    waiting += replica.scheduler->waiting();
    preemptions += replica.scheduler->preemptions();
    usage = std::max(usage, replica.cache->usage());
  }
  metrics_.running = running;
  metrics_.waiting = waiting;
  metrics_.preemptions = preemptions;
  metrics_.cache_usage = usage;
}

// What is on the device is lost, and with it the requests that had something there.
void Engine::recover(const Error& error) {
  ++metrics_.failed_steps;
  std::vector<int64_t> touched;
  for (const auto& [id, live] : live_) {
    if (live->slot >= 0 || live->in_flight > 0) touched.push_back(id);
  }
  std::sort(touched.begin(), touched.end());
  masks_due_.clear();
  for (const int64_t id : touched) {
    Live& live = *live_.at(id);
    live.in_flight = live.pending = 0;
    if (!live.finished) {
      const std::string why = fmt::format("[engine] a step has failed: {}", error.what());
      end_with_error(live, Error(Code::kInternal, why));
    }
    live_.erase(id);
  }
  for (const Replica& replica : replicas_) replica.cache->forget_all();
  runner_->reset();
  if (draft_) draft_->reset();
}

bool Engine::launch() {
  const auto start = Clock::now();
  try {
    if (options_.speculation.num_speculative_tokens > 0) propose_drafts();
    return launch_scheduled(start);
  } catch (const Error& error) {
    recover(error);
    return false;
  }
}

bool Engine::launch_scheduled(Clock::time_point start) {
  Launched& step = launched_[static_cast<size_t>(launches_ % Runner::kMostInFlight)];
  step.items.clear();
  for (const Replica& replica : replicas_) {
    const std::span<const Scheduled> items = replica.scheduler->schedule();
    step.items.insert(step.items.end(), items.begin(), items.end());
  }
  if (step.items.empty()) return false;
  step.rows.clear();
  step.row_items.clear();
  step.logprobs = false;
  step.start = start;
  int64_t token = 0;
  for (size_t i = 0; i < step.items.size(); ++i) {
    add_rows(step, i, token);
    token += step.items[i].count;
  }
  metrics_.observe_step(token);
  for (size_t replica = 0; replica < replicas_.size(); ++replica) {
    const std::span<const BlockCopy> copies = replicas_[replica].cache->copies();
    if (!copies.empty()) runner_->copy_blocks(static_cast<int32_t>(replica), copies);
  }
  runner_->launch(step.items, step.rows, step.logprobs);
  ++launches_;
  ++metrics_.steps;
  return true;
}

void Engine::add_rows(Launched& step, size_t item, int64_t first_token) {
  const Scheduled& scheduled = step.items[item];
  Live& live = static_cast<Live&>(*scheduled.sequence);
  const SamplingParams& sampling = live.request.sampling;
  const int64_t end = scheduled.first + scheduled.count;
  if (!live.started) {
    live.started = true;
    live.queue_seconds = std::chrono::duration<double>(step.start - live.submitted).count();
    metrics_.prompt_tokens += live.prompt_length;
    metrics_.cached_tokens += live.cached_prefix;
  }
  if (live.history_of != live.preemptions && sampling.has_penalties()) {
    live.history_of = live.preemptions;
    const std::span tokens(live.tokens);
    const auto prompt = static_cast<size_t>(live.prompt_length);
    runner_->set_history(live.replica, live.slot, tokens.first(prompt), tokens.subspan(prompt));
  }
  if (live.wants_all_rows) {
    const auto known = static_cast<int64_t>(live.prompt_logprobs.size());
    for (int64_t i = scheduled.first; i < end && i + 1 < live.prompt_length; ++i) {
      if (i < known) continue;  // computed again after a preemption
      Row row;
      row.token = first_token + i - scheduled.first;
      row.target = live.tokens[static_cast<size_t>(i + 1)];
      step.rows.push_back(row);
      step.row_items.push_back(item);
      step.logprobs = true;
    }
  }
  if (!scheduled.samples) return;
  set_step_bias(live);
  for (int64_t i = end - scheduled.drafts; i <= end; ++i) {  // one behind the last token or draft
    Row row;
    row.token = first_token + i - 1 - scheduled.first;
    row.slot = live.slot;
    row.sampling = &sampling;
    row.position = i - live.prompt_length;
    row.bias = live.step_bias;
    if (live.constraint) {
      row.allowed = live.constraint->mask(static_cast<size_t>(i - end + scheduled.drafts));
    }
    step.rows.push_back(row);
    step.row_items.push_back(item);
  }
  step.logprobs = step.logprobs || sampling.logprobs >= 0;
}

// Tokens that must not come next.
void Engine::set_step_bias(Live& live) const {
  const SamplingParams& sampling = live.request.sampling;
  live.step_bias.clear();
  // The token that is about to be sampled counts already.
  if (live.length() - live.prompt_length <= sampling.min_tokens) live.step_bias = live.early_bias;
  const auto length = live.tokens.size() - static_cast<size_t>(live.prompt_length);
  for (const std::vector<int32_t>& word : sampling.bad_words) {
    const size_t before = word.size() - 1;
    if (before <= length && std::equal(word.begin(), word.end() - 1,
                                       live.tokens.end() - static_cast<std::ptrdiff_t>(before))) {
      live.step_bias.emplace_back(word.back(), kForbidden);
    }
  }
}

void Engine::end_with_error(Live& live, const Error& error) {
  RequestOutput output;
  output.request = live.id;
  output.error = error.what();
  output.error_code = error.code();
  end(live, output, FinishReason::kError);
  live.on_output(output);
}

void Engine::finish_step() {
  const auto index = launches_ - runner_->in_flight();
  StepResult result;
  try {
    result = runner_->finish();
  } catch (const Error& error) {
    return recover(error);
  }
  const Launched& step = launched_[static_cast<size_t>(index % Runner::kMostInFlight)];
  size_t row = 0;
  int64_t sampled = 0;
  for (size_t i = 0; i < step.items.size(); ++i) {
    const Scheduled& item = step.items[i];
    Live& live = static_cast<Live&>(*item.sequence);
    RequestOutput& output = output_;
    output.clear();
    output.request = live.id;
    const std::span<const int32_t> tokens = take_sampled(step, result, i, row, output);
    scheduler_of(live).complete(item, tokens);
    sampled += static_cast<int64_t>(tokens.size());
    metrics_.drafts += item.drafts > 0 ? 1 : 0;
    metrics_.draft_tokens += item.drafts;
    if (item.drafts > 0) metrics_.accepted_draft_tokens += static_cast<int64_t>(tokens.size()) - 1;
    live.drafts.clear();
    if (item.samples && !live.finished) {
      advance(live, tokens, output);
      live.on_output(output);
      if (live.constraint && !live.finished) masks_due_.push_back(&live);
    }
    forget_if_done(live);
  }
  prepare_masks();  // while the step that was started meanwhile runs
  judge_speculation(step, sampled);
}

void Engine::collect_logprobs(const Launched& step, const StepResult& result, size_t row,
                              RequestOutput& output) {
  Live& live = static_cast<Live&>(*step.items[step.row_items[row]].sequence);
  const Row& wanted = step.rows[row];
  const SamplingParams& sampling = live.request.sampling;
  const int64_t count = wanted.target >= 0 ? sampling.prompt_logprobs : sampling.logprobs;
  if (count < 0) return;
  TokenLogprobs logprobs;
  logprobs.token = wanted.target >= 0 ? wanted.target : result.tokens[row];
  logprobs.logprob = static_cast<double>(result.logprobs[row]);
  const auto width = static_cast<size_t>(runner_->shape().top_logprobs);
  for (size_t k = 0; k < std::min(width, static_cast<size_t>(count)); ++k) {
    const size_t place = row * width + k;
    logprobs.top.emplace_back(result.top_tokens[place],
                              static_cast<double>(result.top_logprobs[place]));
  }
  (wanted.target >= 0 ? live.prompt_logprobs : output.logprobs).push_back(std::move(logprobs));
}

bool Engine::is_end(const Live& live, int32_t token) const {
  const SamplingParams& sampling = live.request.sampling;
  const auto has = [token](const std::vector<int32_t>& list) {
    return std::find(list.begin(), list.end(), token) != list.end();
  };
  return has(sampling.stop_token_ids) || (!sampling.ignore_eos && has(text_.end_tokens()));
}

// The sequence has got tokens.
void Engine::advance(Live& live, std::span<const int32_t> tokens, RequestOutput& output) {
  output.cached_tokens = live.cached_prefix;
  output.queue_seconds = live.queue_seconds;
  int64_t length = static_cast<int64_t>(live.tokens.size() - tokens.size());
  if (length == live.prompt_length) {
    output.prompt_logprobs = std::move(live.prompt_logprobs);
    live.wants_all_rows = false;
  }
  for (const int32_t token : tokens) {
    ++length;
    ++metrics_.generation_tokens;
    if (live.constraint && !live.constraint->accept(token)) {
      const std::string& why = live.constraint->error();
      output.error = why.empty()
                         ? "[structured outputs] all that the grammar allows is forbidden by "
                           "logit_bias, bad_words or min_tokens"
                         : why;
      output.error_code = Code::kInvalidArgument;
      end(live, output, FinishReason::kError);
      break;
    }
    output.tokens.push_back(token);
    if (is_end(live, token)) {
      output.stop = std::to_string(token);
      end(live, output, FinishReason::kStop);
    } else {
      const auto match =
          live.matcher.push(live.detokenizer ? live.detokenizer->push(token) : std::string());
      output.text += match.text;
      if (match.matched) {
        output.stop = live.matcher.stop();
        output.finished = FinishReason::kStop;  // what is held back belongs to the stop string
        scheduler_of(live).finish(live);
        ++metrics_.finished;
      } else if (live.constraint && live.constraint->ended()) {
        end(live, output, FinishReason::kStop);
      } else if (length >= live.max_length) {
        end(live, output, FinishReason::kLength);
      }
    }
    if (output.finished) break;
  }
  if (output.logprobs.size() > output.tokens.size()) output.logprobs.resize(output.tokens.size());
}

void Engine::end(Live& live, RequestOutput& output, FinishReason reason) {
  output.finished = reason;
  const auto match =
      live.matcher.push(live.detokenizer ? live.detokenizer->flush() : std::string());
  output.text += match.text;
  if (!match.matched) output.text += live.matcher.flush();
  scheduler_of(live).finish(live);
  ++metrics_.finished;
}

void Engine::forget_if_done(Live& live) {
  if (live.finished && live.in_flight == 0) live_.erase(live.id);
}

}  // namespace ttpu::engine
