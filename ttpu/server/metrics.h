// What /metrics says, in Prometheus' text format. Names that begin with `vllm:` mean what they mean
// there, so that dashboards go on working.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "ttpu/engine/embedding_queue.h"
#include "ttpu/engine/engine.h"

namespace ttpu::server {

class Histogram {
 public:
  // Upper bounds, rising; one without end is added.
  explicit Histogram(std::vector<double> bounds);
  // Counted elsewhere: one count more than bounds.
  Histogram(std::vector<double> bounds, std::vector<int64_t> counts, double sum);
  void observe(double value);
  // Appends the lines of `name`, `labels` being `a="b"` or empty.
  void print(const std::string& name, const std::string& labels, std::string& out) const;

 private:
  std::vector<double> bounds_;
  std::vector<int64_t> counts_;
  double sum_ = 0;
};

// On the server's thread.
class Metrics {
 public:
  explicit Metrics(const std::string& model);

  Histogram time_to_first_token;
  Histogram inter_token_latency;
  Histogram time_per_output_token;  // of a request's answer, its first token left out
  Histogram queue_time;             // of a request until its first step
  Histogram prefill_time;           // from there to its first token
  Histogram decode_time;            // from there to its last token
  Histogram inference_time;         // of prefill and decode
  Histogram request_latency;
  Histogram prompt_tokens;
  Histogram generation_tokens;
  Histogram params_n;           // what requests ask for
  Histogram params_max_tokens;  // likewise

  void count_finished(const std::string& reason) { ++finished_[reason]; }
  void count_response(int status) { ++responses_[status]; }

  // `live`: requests that have been submitted and have not ended.
  std::string engine_text(const engine::Engine& engine, int64_t live) const;
  std::string embedding_text(const engine::EmbeddingMetrics& counts) const;
  // What is the same whatever is served.
  std::string server_text(int64_t connections) const;

 private:
  std::string labels_;
  std::map<std::string, int64_t> finished_;
  std::map<int, int64_t> responses_;
};

}  // namespace ttpu::server
