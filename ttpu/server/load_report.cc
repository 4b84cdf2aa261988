#include <algorithm>
#include <cmath>
#include <numeric>

#include "ttpu/server/load.h"

namespace ttpu::server {
namespace {

constexpr size_t kMostErrors = 5;

// The nearest rank.
double quantile(const std::vector<double>& sorted, double share) {
  return sorted[static_cast<size_t>(std::lround(share * static_cast<double>(sorted.size() - 1)))];
}

// 0 where there is nothing to tell.
void add_times(Json& report, const std::string& name, std::vector<double> seconds) {
  std::sort(seconds.begin(), seconds.end());
  const bool any = !seconds.empty();
  const double sum = std::accumulate(seconds.begin(), seconds.end(), 0.0);
  report["mean_" + name + "_ms"] = any ? 1e3 * sum / static_cast<double>(seconds.size()) : 0;
  report["median_" + name + "_ms"] = any ? 1e3 * quantile(seconds, 0.5) : 0;
  report["p99_" + name + "_ms"] = any ? 1e3 * quantile(seconds, 0.99) : 0;
}

void add_details(Json& report, const std::vector<LoadAnswer>& answers) {
  for (const char* name : {"input_lens", "output_lens", "ttfts", "latencies", "errors"}) {
    report[name] = Json::array();
  }
  for (const LoadAnswer& answer : answers) {
    report["input_lens"].push_back(answer.prompt_tokens);
    report["output_lens"].push_back(answer.output_tokens);
    report["ttfts"].push_back(answer.pieces.empty() ? 0 : answer.pieces.front());
    report["latencies"].push_back(answer.seconds);
    report["errors"].push_back(answer.error);
  }
}

}  // namespace

Json load_report(const LoadResult& result, bool detailed) {
  int64_t completed = 0;
  int64_t input = 0;
  int64_t output = 0;
  std::vector<double> first;
  std::vector<double> per_token;
  std::vector<double> between;
  std::vector<double> whole;
  std::vector<std::string> errors;  // no two of them the same
  for (const LoadAnswer& answer : result.answers) {
    if (!answer.error.empty()) {
      const bool known = std::find(errors.begin(), errors.end(), answer.error) != errors.end();
      if (!known && errors.size() < kMostErrors) errors.push_back(answer.error);
      continue;
    }
    ++completed;
    input += answer.prompt_tokens;
    output += answer.output_tokens;
    whole.push_back(answer.seconds);
    if (answer.pieces.empty()) continue;
    first.push_back(answer.pieces.front());
    if (answer.output_tokens > 1) {
      per_token.push_back((answer.pieces.back() - answer.pieces.front()) /
                          static_cast<double>(answer.output_tokens - 1));
    }
    for (size_t i = 1; i < answer.pieces.size(); ++i) {
      between.push_back(answer.pieces[i] - answer.pieces[i - 1]);
    }
  }
  const double seconds = std::max(result.seconds, 1e-9);
  Json report = {{"duration", result.seconds},
                 {"completed", completed},
                 {"failed", static_cast<int64_t>(result.answers.size()) - completed},
                 {"total_input_tokens", input},
                 {"total_output_tokens", output},
                 {"request_throughput", static_cast<double>(completed) / seconds},
                 {"output_throughput", static_cast<double>(output) / seconds},
                 {"total_token_throughput", static_cast<double>(input + output) / seconds}};
  add_times(report, "ttft", std::move(first));
  add_times(report, "tpot", std::move(per_token));
  add_times(report, "itl", std::move(between));
  add_times(report, "e2el", std::move(whole));
  if (!errors.empty()) report["error_messages"] = errors;
  if (detailed) add_details(report, result.answers);
  return report;
}

}  // namespace ttpu::server
