// `ttpu bench`: how fast a model runs here, without a server in between; `serve` is a file of its
// own.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <random>

#include "cli/commands.h"
#include "cli/model_flags.h"
#include "cli/with_engine.h"
#include "ttpu/base/error.h"
#include "ttpu/engine/generator.h"
#include "ttpu/engine/offline.h"

namespace {

using Clock = std::chrono::steady_clock;
using ttpu::Json;
using ttpu::engine::Engine;
using ttpu::engine::Request;

constexpr size_t kPrompts = 32;  // unless it is said how many

struct BenchFlags {
  ttpu::cli::ModelFlags model;
  int64_t input_len = 128;
  int64_t output_len = 128;
  int64_t num_prompts = 0;
  std::string dataset;
  int64_t iterations = 5;
  bool json = false;
};

Request random_request(const BenchFlags& flags, int64_t vocab, std::mt19937_64& random) {
  Request request;
  for (int64_t i = 0; i < flags.input_len; ++i) {
    request.prompt.push_back(static_cast<int32_t>(random() % static_cast<uint64_t>(vocab)));
  }
  request.sampling = flags.model.sampling;
  request.sampling.max_tokens = flags.output_len;
  request.sampling.ignore_eos = true;
  return request;
}

// Those of the dataset, again and again if there are to be more, or random ones.
std::vector<Request> requests_of(const BenchFlags& flags, const Engine& engine,
                                 std::mt19937_64& random) {
  std::vector<Json> items;
  if (!flags.dataset.empty()) items = ttpu::engine::read_jsonl(flags.dataset);
  ttpu::require(flags.dataset.empty() || !items.empty(), "[bench] '{}' has no prompts",
                flags.dataset);
  const size_t all = items.empty() ? kPrompts : items.size();
  const size_t count = flags.num_prompts > 0 ? static_cast<size_t>(flags.num_prompts) : all;
  std::vector<Request> requests;
  for (size_t i = 0; i < count; ++i) {
    requests.push_back(random_request(flags, engine.vocab(), random));
    if (items.empty()) continue;
    const size_t line = i % items.size();
    requests[i].prompt = ttpu::engine::prompt_tokens(
        engine.text(), items[line], false, fmt::format("line {} of '{}'", line + 1, flags.dataset));
    engine.check(requests[i]);
  }
  return requests;
}

struct Measured {
  double seconds = 0;
  int64_t prompt_tokens = 0;
  int64_t output_tokens = 0;
  std::vector<double> first_token;  // seconds, one a request
  std::vector<double> per_token;    // seconds between tokens, one a request
};

Measured measure(Engine& engine, std::vector<Request> requests) {
  Measured measured;
  size_t next = 0;
  ttpu::engine::GenerationCallbacks callbacks;
  callbacks.next = [&]() -> std::optional<Request> {
    if (next == requests.size()) return std::nullopt;
    return std::move(requests[next++]);
  };
  callbacks.on_done = [&](size_t, const Request& request,
                          const ttpu::engine::GenerationResult& result) {
    const auto tokens = static_cast<double>(result.token_ids.size());
    measured.prompt_tokens += static_cast<int64_t>(request.prompt.size());
    measured.output_tokens += static_cast<int64_t>(result.token_ids.size());
    measured.first_token.push_back(result.first_token_seconds);
    if (tokens > 1) measured.per_token.push_back(result.decode_seconds / (tokens - 1));
  };
  const auto start = Clock::now();
  ttpu::engine::generate_all(engine, callbacks);
  measured.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return measured;
}

// 0 of nothing.
double quantile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(share * static_cast<double>(values.size() - 1))];
}

// The engine's counts at some moment.
struct HostWork {
  explicit HostWork(const Engine& engine)
      : steps(engine.metrics().steps),
        seconds(engine.metrics().host_seconds),
        dispatch(engine.metrics().dispatch_seconds),
        engine_cpu(engine.metrics().engine_cpu_seconds) {}
  int64_t steps;
  double seconds;
  double dispatch;
  double engine_cpu;
};

// What the host did since then, a step.
void report_host(const Engine& engine, const HostWork& before, Json& report) {
  const HostWork now(engine);
  const auto per_step = [steps = now.steps - before.steps](double seconds) {
    return steps > 0 ? seconds / static_cast<double>(steps) * 1e6 : 0;
  };
  report["steps"] = now.steps - before.steps;
  report["host_microseconds_per_step"] = per_step(now.seconds - before.seconds);
  report["dispatch_microseconds_per_step"] = per_step(now.dispatch - before.dispatch);
  report["engine_cpu_microseconds_per_step"] = per_step(now.engine_cpu - before.engine_cpu);
}

void print(const BenchFlags& flags, const Json& report) {
  if (flags.json) {
    std::puts(report.dump().c_str());
    return;
  }
  for (const auto& [name, value] : report.items()) {
    std::printf("%-28s %s\n", name.c_str(), value.dump().c_str());
  }
}

Json describe(const BenchFlags& flags) {
  return {{"input_len", flags.input_len},
          {"output_len", flags.output_len},
          {"max_num_seqs", flags.model.engine.max_num_seqs}};
}

void with_engine(const BenchFlags& flags, const ttpu::cli::Lead& lead) {
  ttpu::require(flags.input_len > 0 && flags.output_len > 0,
                "[bench] --input-len is {} and --output-len {}, expected at least 1",
                flags.input_len, flags.output_len);
  ttpu::cli::ModelFlags model = flags.model;
  model.engine.lazy_programs = false;  // what is loaded late would be measured
  if (model.engine.max_model_len == 0 && flags.dataset.empty())
    model.engine.max_model_len = flags.input_len + flags.output_len;
  ttpu::cli::with_engine(model, lead);
}

void measure_throughput(Engine& engine, const BenchFlags& flags) {
  std::mt19937_64 random(flags.model.sampling.seed);
  std::vector<Request> requests = requests_of(flags, engine, random);
  const size_t count = requests.size();
  // Every page is touched once.
  measure(engine, {random_request(flags, engine.vocab(), random)});
  const HostWork before(engine);
  const Measured measured = measure(engine, std::move(requests));
  Json report = describe(flags);
  report["num_prompts"] = count;
  report["seconds"] = measured.seconds;
  report["requests_per_second"] = static_cast<double>(count) / measured.seconds;
  report["output_tokens_per_second"] =
      static_cast<double>(measured.output_tokens) / measured.seconds;
  report["total_tokens_per_second"] =
      static_cast<double>(measured.output_tokens + measured.prompt_tokens) / measured.seconds;
  report["median_seconds_per_token"] = quantile(measured.per_token, 0.5);
  report_host(engine, before, report);
  report["preemptions"] = engine.metrics().preemptions.load();
  print(flags, report);
}

void measure_latency(Engine& engine, const BenchFlags& flags) {
  std::mt19937_64 random(flags.model.sampling.seed);
  measure(engine, {random_request(flags, engine.vocab(), random)});
  std::vector<double> seconds;
  std::vector<double> first;
  std::vector<double> per_token;
  for (int64_t i = 0; i < flags.iterations; ++i) {
    std::vector<Request> batch;
    for (int64_t k = 0; k < flags.model.engine.max_num_seqs; ++k) {
      batch.push_back(random_request(flags, engine.vocab(), random));
    }
    const Measured measured = measure(engine, std::move(batch));
    seconds.push_back(measured.seconds);
    first.push_back(quantile(measured.first_token, 0.5));
    per_token.push_back(quantile(measured.per_token, 0.5));
  }
  Json report = describe(flags);
  report["iterations"] = flags.iterations;
  report["median_seconds"] = quantile(seconds, 0.5);
  report["median_first_token_seconds"] = quantile(first, 0.5);
  report["prefill_tokens_per_second"] =
      static_cast<double>(flags.input_len * flags.model.engine.max_num_seqs) / quantile(first, 0.5);
  report["median_seconds_per_token"] = quantile(per_token, 0.5);
  report["decode_tokens_per_second"] =
      static_cast<double>(flags.model.engine.max_num_seqs) / quantile(per_token, 0.5);
  print(flags, report);
}

void run_throughput(const BenchFlags& flags) {
  ttpu::require(flags.num_prompts >= 0, "[bench] --num-prompts is {}, expected at least 1",
                flags.num_prompts);
  with_engine(flags, [&](Engine& engine) { measure_throughput(engine, flags); });
}

void run_latency(const BenchFlags& flags) {
  ttpu::require(flags.iterations > 0, "[bench] --iterations is {}, expected at least 1",
                flags.iterations);
  with_engine(flags, [&](Engine& engine) { measure_latency(engine, flags); });
}

void add_flags(CLI::App& command, BenchFlags* flags) {
  ttpu::cli::add_model_flags(command, &flags->model);
  command.add_option("--input-len", flags->input_len, "Random tokens of each prompt")
      ->capture_default_str();
  command.add_option("--output-len", flags->output_len, "Tokens of each answer")
      ->capture_default_str();
  command.add_flag("--json", flags->json, "One JSON object");
}

}  // namespace

void add_bench_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("bench", "Measure how fast a model runs here");
  command->require_subcommand(1);

  auto throughput = std::make_shared<BenchFlags>();
  throughput->model.engine.max_num_seqs = 16;
  throughput->model.engine.max_num_batched_tokens = 2048;
  CLI::App* many = command->add_subcommand("throughput", "Many prompts, as fast as they go");
  add_flags(*many, throughput.get());
  many->add_option("--num-prompts", throughput->num_prompts,
                   "How many (default: all of the dataset, or 32)");
  many->add_option(
      "--dataset,--dataset-path", throughput->dataset,
      "A file with a JSON object a line, `prompt`, `prompt_token_ids` or `messages`, in "
      "place of random prompts");
  many->add_option("--max-num-seqs", throughput->model.engine.max_num_seqs, "Answered at once")
      ->capture_default_str();
  many->add_option("--max-num-batched-tokens", throughput->model.engine.max_num_batched_tokens,
                   "Tokens of one step")
      ->capture_default_str();
  many->callback([throughput] { run_throughput(*throughput); });

  auto latency = std::make_shared<BenchFlags>();
  CLI::App* one = command->add_subcommand("latency", "One batch after the other");
  add_flags(*one, latency.get());
  one->add_option("--batch-size", latency->model.engine.max_num_seqs, "Prompts of a batch")
      ->capture_default_str();
  one->add_option("--iterations", latency->iterations, "Batches")->capture_default_str();
  one->callback([latency] { run_latency(*latency); });
  add_bench_serve_command(*command);
  command->footer(
      "Random prompts unless there is a --dataset, greedy unless --temperature says otherwise. "
      "Example:\n"
      "  ttpu bench latency model.gguf --input-len 128 --output-len 128");
}
