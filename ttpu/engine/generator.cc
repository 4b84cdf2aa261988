#include "ttpu/engine/generator.h"

#include <chrono>
#include <map>

#include "ttpu/base/error.h"

namespace ttpu::engine {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

// One answer that is being collected.
struct Answer {
  Request request;
  int64_t id = 0;
  Clock::time_point start = Clock::now();
  Clock::time_point first;
  GenerationResult result;

  void add(const RequestOutput& output) {
    const auto now = Clock::now();
    if (result.token_ids.empty()) first = now;
    result.text += output.text;
    result.token_ids.insert(result.token_ids.end(), output.tokens.begin(), output.tokens.end());
    result.logprobs.insert(result.logprobs.end(), output.logprobs.begin(), output.logprobs.end());
    if (!output.finished) return;
    result.finish_reason = *output.finished;
    result.error = output.error;
    result.error_code = output.error_code;
    result.first_token_seconds = seconds_between(start, first);
    result.decode_seconds = seconds_between(first, now);
  }
};

}  // namespace

void generate_all(Engine& engine, const GenerationCallbacks& callbacks,
                  const std::atomic<bool>* cancelled) {
  // Some wait while others run, so that no place stays empty.
  const auto most = static_cast<size_t>(2 * engine.options().max_num_seqs);
  std::map<size_t, Answer> answers;
  std::vector<size_t> ended;
  size_t count = 0;
  bool more = true;
  const auto submit = [&](Request request) {
    const size_t index = count++;
    Answer& answer = answers[index];
    answer.request = request;
    answer.id = engine.submit(std::move(request), [&, index](const RequestOutput& output) {
      answer.add(output);
      if (callbacks.on_text && !output.text.empty()) callbacks.on_text(index, output.text);
      if (output.finished) ended.push_back(index);
    });
  };
  while (more || !answers.empty()) {
    if (cancelled != nullptr && cancelled->load()) {
      more = false;
      for (const auto& [index, answer] : answers) engine.abort(answer.id);
    }
    while (more && answers.size() < most) {
      std::optional<Request> request = callbacks.next();
      more = request.has_value();
      if (more) submit(std::move(*request));
    }
    engine.step();
    for (const size_t index : ended) {
      Answer answer = std::move(answers.at(index));
      answers.erase(index);
      callbacks.on_done(index, answer.request, std::move(answer.result));
    }
    ended.clear();
  }
  while (engine.step()) {
  }
}

GenerationResult generate_one(Engine& engine, const Request& request,
                              const std::function<void(const std::string&)>& on_text,
                              const std::atomic<bool>* cancelled) {
  GenerationResult result;
  std::optional<Request> next = request;
  GenerationCallbacks callbacks;
  callbacks.next = [&] { return std::exchange(next, std::nullopt); };
  if (on_text) callbacks.on_text = [&](size_t, const std::string& text) { on_text(text); };
  callbacks.on_done = [&](size_t, const Request&, GenerationResult done) {
    result = std::move(done);
  };
  generate_all(engine, callbacks, cancelled);
  if (result.finish_reason == FinishReason::kError) throw Error(result.error_code, result.error);
  return result;
}

}  // namespace ttpu::engine
