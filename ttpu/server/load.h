// A server of OpenAI's interface under load, whichever it is: sends requests, streams the answers
// and notes when each piece comes. What is measured is that of vLLM's `vllm bench serve`.
#pragma once

#include <chrono>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "ttpu/base/json.h"

namespace ttpu::server {

struct LoadOptions {
  std::string base_url = "http://127.0.0.1:8000";  // also https, with a path, `/v1` or not
  std::string api_key;                             // may be empty
  double request_rate = std::numeric_limits<double>::infinity();  // a second, a Poisson process
  int64_t max_concurrency = 0;                                    // 0: no limit
  std::chrono::seconds timeout{600};                              // of one request
  uint64_t seed = 0;                                              // of the arrivals
};

// Streamed; `stream` and `stream_options` are added. A body with `messages` goes to
// /v1/chat/completions, any other to /v1/completions.
using LoadRequest = Json;

// Seconds; those of events since the request was sent.
struct LoadAnswer {
  std::vector<double> pieces;  // when text came
  double seconds = 0;          // to the end
  int64_t prompt_tokens = 0;
  int64_t output_tokens = 0;  // by `usage`; of a server that has none, the pieces
  std::string error;          // empty: the answer is whole
};

struct LoadResult {
  double seconds = 0;
  std::vector<LoadAnswer> answers;  // one a request
};

// The name of the first model that /v1/models lists. Throws kUnavailable when there is none.
std::string first_served_model(const LoadOptions& options);

// Requests are begun in their order. What a server does wrong is its answer's error. Throws
// kInvalidArgument for a bad URL.
LoadResult run_load(const LoadOptions& options, const std::vector<LoadRequest>& requests);

// Figures under vLLM's names: throughput in tokens a second; time to first token (ttft), time per
// output token after it (tpot), time between pieces (itl) and to the end (e2el), each mean, median
// and 99th percentile in milliseconds, of the answers that are whole. `detailed` adds lists with a
// value for each request.
Json load_report(const LoadResult& result, bool detailed);

}  // namespace ttpu::server
