#include "ttpu/server/metrics.h"

#include <algorithm>
#include <fstream>

#include <unistd.h>

namespace ttpu::server {
namespace {

const std::vector<double> kFirstToken = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08,
                                         0.1,   0.25,  0.5,  0.75, 1,    2.5,  5,
                                         7.5,   10,    20,   40,   80,   160};
const std::vector<double> kBetween = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15,
                                      0.2,   0.3,    0.4,   0.5,  0.75,  1,    2.5,   5,   10};
const std::vector<double> kLatency = {0.05, 0.1, 0.3, 0.5, 0.8, 1,  1.5, 2,   2.5, 5,
                                      10,   15,  20,  30,  40,  50, 60,  120, 240, 480};
const std::vector<double> kTokens = {1,   2,    5,    10,   20,    50,    100,   200,
                                     500, 1000, 2000, 5000, 10000, 20000, 50000, 100000};

int64_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  int64_t size = 0;
  int64_t resident = 0;
  file >> size >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\' || c == '"') out += '\\';
    out += c == '\n' ? ' ' : c;
  }
  return out;
}

Histogram tokens_of_steps(const engine::EngineMetrics& metrics) {
  const auto& bounds = engine::EngineMetrics::kStepTokens;
  const std::vector<int64_t> counts(metrics.steps_by_tokens.begin(), metrics.steps_by_tokens.end());
  return {std::vector<double>(bounds.begin(), bounds.end()), counts,
          static_cast<double>(metrics.step_tokens)};
}

class Page {
 public:
  explicit Page(std::string labels) : labels_(std::move(labels)) {}

  template <typename T>
  void add(const char* name, const char* type, const char* help, T value) {
    head(name, type, help);
    sample(name, "", value);
  }
  void head(const char* name, const char* type, const char* help) {
    // The format names a counter without its suffix only in OpenMetrics; this is the older one.
    out += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
  }
  template <typename T>
  void sample(const char* name, const std::string& label, T value) {
    out += fmt::format("{}{{{}{}{}}} {}\n", name, labels_, label.empty() ? "" : ",", label, value);
  }
  void add(const char* name, const char* help, const Histogram& histogram) {
    head(name, "histogram", help);
    histogram.print(name, labels_, out);
  }

  std::string out;

 private:
  std::string labels_;
};

}  // namespace

Histogram::Histogram(std::vector<double> bounds)
    : bounds_(std::move(bounds)), counts_(bounds_.size() + 1) {}

Histogram::Histogram(std::vector<double> bounds, std::vector<int64_t> counts, double sum)
    : bounds_(std::move(bounds)), counts_(std::move(counts)), sum_(sum) {}

void Histogram::observe(double value) {
  const auto place = std::lower_bound(bounds_.begin(), bounds_.end(), value);
  ++counts_[static_cast<size_t>(place - bounds_.begin())];
  sum_ += value;
}

void Histogram::print(const std::string& name, const std::string& labels, std::string& out) const {
  const char* comma = labels.empty() ? "" : ",";
  int64_t total = 0;
  for (size_t i = 0; i < counts_.size(); ++i) {
    total += counts_[i];
    const std::string bound = i < bounds_.size() ? fmt::format("{}", bounds_[i]) : "+Inf";
    out += fmt::format("{}_bucket{{{}{}le=\"{}\"}} {}\n", name, labels, comma, bound, total);
  }
  out +=
      fmt::format("{}_sum{{{}}} {}\n{}_count{{{}}} {}\n", name, labels, sum_, name, labels, total);
}

Metrics::Metrics(const std::string& model)
    : time_to_first_token(kFirstToken),
      inter_token_latency(kBetween),
      time_per_output_token(kBetween),
      queue_time(kLatency),
      prefill_time(kLatency),
      decode_time(kLatency),
      inference_time(kLatency),
      request_latency(kLatency),
      prompt_tokens(kTokens),
      generation_tokens(kTokens),
      params_n({1, 2, 5, 10, 20}),
      params_max_tokens(kTokens),
      labels_(fmt::format("model_name=\"{}\"", escaped(model))),
      finished_({{"stop", 0}, {"length", 0}, {"abort", 0}, {"error", 0}}) {}

std::string Metrics::engine_text(const engine::Engine& engine, int64_t live) const {
  const engine::EngineMetrics& counts = engine.metrics();
  Page page(labels_);
  const int64_t running = counts.running;
  page.add("vllm:num_requests_running", "gauge", "Requests in the batch.", running);
  page.add("vllm:num_requests_waiting", "gauge", "Requests that wait for a place in it.",
           std::max<int64_t>(0, live - running));
  page.add("vllm:kv_cache_usage_perc", "gauge", "Share of the cache's blocks in use, 1 is all.",
           counts.cache_usage.load());
  page.add("vllm:prefix_cache_queries_total", "counter",
           "Tokens of prompts that were looked for in the cache.", counts.prompt_tokens.load());
  page.add("vllm:prefix_cache_hits_total", "counter", "Those of them that were found.",
           counts.cached_tokens.load());
  page.add("vllm:num_preemptions_total", "counter", "Requests that had to give up their blocks.",
           counts.preemptions.load());
  page.add("vllm:prompt_tokens_total", "counter", "Tokens of prompts.",
           counts.prompt_tokens.load());
  page.add("vllm:generation_tokens_total", "counter", "Tokens of answers.",
           counts.generation_tokens.load());
  page.add("vllm:spec_decode_num_drafts_total", "counter", "Times that a sequence had guesses.",
           counts.drafts.load());
  page.add("vllm:spec_decode_num_draft_tokens_total", "counter", "Tokens that were guessed.",
           counts.draft_tokens.load());
  page.add("vllm:spec_decode_num_accepted_tokens_total", "counter", "Guesses that were right.",
           counts.accepted_draft_tokens.load());
  page.add("ttpu:spec_decode_speed_up", "gauge",
           "Tokens of a second with guesses for each without; 0: not known.",
           counts.speculation_speed_up.load());
  page.add("ttpu:failed_steps_total", "counter", "Steps that the device has failed.",
           counts.failed_steps.load());
  page.add("vllm:time_to_first_token_seconds", "From request to first token.", time_to_first_token);
  page.add("vllm:inter_token_latency_seconds", "Between two tokens.", inter_token_latency);
  page.add("vllm:request_time_per_output_token_seconds",
           "Of a request's tokens after the first, the mean.", time_per_output_token);
  page.add("vllm:request_queue_time_seconds", "Until a request's first step.", queue_time);
  page.add("vllm:request_prefill_time_seconds", "From there to its first token.", prefill_time);
  page.add("vllm:request_decode_time_seconds", "From there to its last token.", decode_time);
  page.add("vllm:request_inference_time_seconds", "From its first step to its last token.",
           inference_time);
  page.add("vllm:request_generation_tokens", "Tokens of a request's answer.", generation_tokens);
  page.add("vllm:request_params_n", "Answers that a request asks for.", params_n);
  page.add("vllm:request_params_max_tokens", "Most tokens that a request asks for.",
           params_max_tokens);
  page.add("vllm:iteration_tokens_total", "Tokens of a step.", tokens_of_steps(counts));
  page.add("ttpu:compilations_after_start_total", "counter",
           "Programs compiled since the server was ready; anything but 0 is a mistake.",
           engine.compilations_after_start());
  page.add("ttpu:steps_total", "counter", "Steps of the engine.", counts.steps.load());
  page.add("ttpu:host_seconds_total", "counter",
           "The engine's own work, without waiting for the device.", counts.host_seconds.load());
  page.add("ttpu:dispatch_seconds_total", "counter",
           "Of that, in the plugin: uploading inputs, starting steps, asking for results.",
           counts.dispatch_seconds.load());
  page.add("ttpu:engine_cpu_seconds_total", "counter",
           "Processor time of the engine's own work, without the plugin's.",
           counts.engine_cpu_seconds.load());
  page.add("ttpu:max_num_seqs", "gauge", "Requests that may run at once.",
           engine.options().max_num_seqs);
  return page.out;
}

std::string Metrics::embedding_text(const engine::EmbeddingMetrics& counts) const {
  Page page(labels_);
  const int64_t running = counts.running;
  page.add("vllm:num_requests_running", "gauge", "Requests with texts in the step that runs.",
           running);
  page.add("vllm:num_requests_waiting", "gauge", "Requests that wait for one.",
           std::max<int64_t>(0, counts.requests - running));
  page.add("vllm:prompt_tokens_total", "counter", "Tokens of texts.", counts.tokens.load());
  page.add("ttpu:embedded_texts_total", "counter", "Texts that were embedded.",
           counts.texts.load());
  page.add("ttpu:steps_total", "counter", "Steps of the model.", counts.steps.load());
  return page.out;
}

std::string Metrics::server_text(int64_t connections) const {
  Page page(labels_);
  page.head("vllm:request_success_total", "counter", "Requests that have ended, by reason.");
  for (const auto& [reason, count] : finished_) {
    page.sample("vllm:request_success_total", fmt::format("finished_reason=\"{}\"", reason), count);
  }
  page.add("vllm:e2e_request_latency_seconds", "From request to last token.", request_latency);
  page.add("vllm:request_prompt_tokens", "Tokens of a request's prompt.", prompt_tokens);
  page.add("ttpu:connections", "gauge", "Open connections.", connections);
  page.head("ttpu:http_responses_total", "counter", "Responses, by status.");
  for (const auto& [status, count] : responses_) {
    page.sample("ttpu:http_responses_total", fmt::format("status=\"{}\"", status), count);
  }
  page.add("process_resident_memory_bytes", "gauge", "Resident memory.", resident_bytes());
  return page.out;
}

}  // namespace ttpu::server
