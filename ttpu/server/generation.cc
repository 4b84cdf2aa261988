#include "ttpu/server/generation.h"

#include <algorithm>
#include <chrono>
#include <iterator>

#include "ttpu/server/api_error.h"

namespace ttpu::server {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_between(Clock::time_point a, Clock::time_point b) {
  return std::chrono::duration<double>(b - a).count();
}

std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// Of a server-sent stream; typed objects say their type twice, as OpenAI's do.
std::string to_event(const Json& json) {
  const auto type = json.find("type");
  const std::string name =
      type == json.end() ? "" : fmt::format("event: {}\n", type->get<std::string>());
  return name + "data: " + dump(json) + "\n\n";
}

class Generation : public std::enable_shared_from_this<Generation> {
 public:
  Generation(EngineLoop& loop, Metrics& metrics, std::shared_ptr<AnswerFormat> format,
             std::shared_ptr<Exchange> exchange)
      : loop_(loop),
        metrics_(metrics),
        format_(std::move(format)),
        exchange_(std::move(exchange)),
        choices_(format_->request.choices()),
        ids_(choices_.size(), 0),
        first_(choices_.size(), start_),
        last_(choices_.size(), start_),
        left_(choices_.size()) {}

  void start() {
    for (size_t i = 0; i < choices_.size(); i += static_cast<size_t>(format_->request.n)) {
      loop_.engine().check(format_->request.engine_request(i));
    }
    const auto self = shared_from_this();
    exchange_->on_gone([self] { self->abort(); });
    for (size_t i = 0; i < choices_.size(); ++i) {
      ids_[i] =
          loop_.submit(format_->request.engine_request(i),
                       [self, i](const engine::RequestOutput& output, const std::string* error) {
                         if (error != nullptr) {
                           self->fail(ApiError(500, *error));
                         } else {
                           self->on_output(i, output);
                         }
                       });
    }
    if (format_->request.stream) {
      exchange_->begin({200,
                        "",
                        "text/event-stream; charset=utf-8",
                        {{"cache-control", "no-cache"}, {"x-accel-buffering", "no"}}});
    }
  }

 private:
  void on_output(size_t index, const engine::RequestOutput& given) {
    if (over_) return;
    if (given.finished == engine::FinishReason::kError) {
      choices_[index].finished = given.finished;
      return fail(to_api_error(Error(given.error_code, given.error)));
    }
    observe(index, given);
    engine::RequestOutput output = given;
    if (format_->request.no_answer) {
      output.text.clear();
      output.tokens.clear();
      output.logprobs.clear();
      output.finished = engine::FinishReason::kLength;
    }
    Choice& choice = choices_[index];
    choice.add(output);
    if (format_->request.stream) {
      std::string events;
      for (Json& event : format_->stream(index, choice, output)) {
        if (format_->request.continuous_usage) event["usage"] = usage().json();
        events += to_event(event);
      }
      exchange_->write(events);
    }
    if (output.finished && --left_ == 0) finish();
  }

  void observe(size_t index, const engine::RequestOutput& output) {
    const auto& request = format_->request;
    const auto now = Clock::now();
    const double since = seconds_between(last_[index], now);
    const auto tokens = static_cast<double>(choices_[index].tokens.size() + output.tokens.size());
    const bool first = choices_[index].tokens.empty();
    if (!output.tokens.empty()) {
      if (first) first_[index] = now;
      (first ? metrics_.time_to_first_token : metrics_.inter_token_latency).observe(since);
      last_[index] = now;
    }
    if (!output.finished) return;
    metrics_.count_finished(to_string(*output.finished));
    metrics_.request_latency.observe(seconds_between(start_, now));
    metrics_.prompt_tokens.observe(
        static_cast<double>(request.prompts[index / static_cast<size_t>(request.n)].size()));
    metrics_.generation_tokens.observe(tokens);
    metrics_.params_n.observe(static_cast<double>(request.n));
    metrics_.params_max_tokens.observe(static_cast<double>(request.sampling.max_tokens));
    if (tokens == 0) return;
    const double prefill =
        std::max(seconds_between(start_, first_[index]) - output.queue_seconds, 0.0);
    const double decode = seconds_between(first_[index], last_[index]);
    metrics_.queue_time.observe(output.queue_seconds);
    metrics_.prefill_time.observe(prefill);
    metrics_.decode_time.observe(decode);
    metrics_.inference_time.observe(prefill + decode);
    if (tokens > 1) metrics_.time_per_output_token.observe(decode / (tokens - 1));
  }

  Usage usage() const {
    Usage usage;
    for (const auto& prompt : format_->request.prompts) {
      usage.prompt_tokens += static_cast<int64_t>(prompt.size());
    }
    for (size_t i = 0; i < choices_.size(); ++i) {
      usage.completion_tokens += static_cast<int64_t>(choices_[i].tokens.size());
      // A prompt counts once, and so what the cache had of it.
      if (i % static_cast<size_t>(format_->request.n) == 0) {
        usage.cached_tokens += choices_[i].cached_tokens;
      }
    }
    return usage;
  }

  // Of the answers to each prompt, the best first and no others.
  void keep_best() {
    GenerationRequest& request = format_->request;
    if (request.best == 0) return;
    const auto mean = [](const Choice& choice) {
      double sum = 0;
      for (const auto& token : choice.logprobs) sum += token.logprob;
      return sum / static_cast<double>(std::max<size_t>(choice.logprobs.size(), 1));
    };
    std::vector<Choice> kept;
    for (size_t first = 0; first < choices_.size(); first += static_cast<size_t>(request.n)) {
      const auto begin = choices_.begin() + static_cast<std::ptrdiff_t>(first);
      std::stable_sort(begin, begin + request.n,
                       [&](const Choice& a, const Choice& b) { return mean(a) > mean(b); });
      std::move(begin, begin + request.best, std::back_inserter(kept));
    }
    choices_ = std::move(kept);
    request.n = request.best;
  }

  void finish() {
    over_ = true;
    if (!format_->request.stream) {
      const Usage used = usage();  // of all that was computed
      keep_best();
      exchange_->reply({200, dump(format_->whole(choices_, used))});
    } else {
      std::string events;
      for (const Json& event : format_->end_stream(choices_, usage())) events += to_event(event);
      if (format_->done_marker()) events += "data: [DONE]\n\n";
      exchange_->write(events);
      exchange_->end();
    }
    exchange_.reset();
  }

  // The engine has failed, a step of it, or this request.
  void fail(const ApiError& error) {
    if (over_) return;
    over_ = true;
    for (size_t i = 0; i < choices_.size(); ++i) {
      if (!choices_[i].finished) loop_.abort(ids_[i]);
    }
    metrics_.count_finished("error");
    if (format_->request.stream) {
      exchange_->write(to_event(error.json()));
      exchange_->end();
    } else {
      exchange_->reply({error.status(), dump(error.json())});
    }
    exchange_.reset();
  }

  // The client has left.
  void abort() {
    if (over_) return;
    over_ = true;
    for (size_t i = 0; i < choices_.size(); ++i) {
      if (choices_[i].finished) continue;
      loop_.abort(ids_[i]);
      metrics_.count_finished(to_string(engine::FinishReason::kAborted));
    }
    exchange_.reset();
  }

  EngineLoop& loop_;
  Metrics& metrics_;
  std::shared_ptr<AnswerFormat> format_;
  std::shared_ptr<Exchange> exchange_;
  std::vector<Choice> choices_;
  std::vector<int64_t> ids_;
  Clock::time_point start_ = Clock::now();
  std::vector<Clock::time_point> first_;  // when each choice got its first token
  std::vector<Clock::time_point> last_;   // when each choice got a token
  size_t left_;
  bool over_ = false;
};

}  // namespace

void start_generation(EngineLoop& loop, Metrics& metrics, std::shared_ptr<AnswerFormat> format,
                      std::shared_ptr<Exchange> exchange) {
  std::make_shared<Generation>(loop, metrics, std::move(format), std::move(exchange))->start();
}

}  // namespace ttpu::server
