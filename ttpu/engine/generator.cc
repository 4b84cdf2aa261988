#include "ttpu/engine/generator.h"

#include <chrono>

namespace ttpu::engine {

GenerationResult Generator::generate(const Request& request,
                                     const std::function<void(const std::string&)>& on_text,
                                     const std::atomic<bool>* cancelled) {
  using Clock = std::chrono::steady_clock;
  GenerationResult result;
  bool finished = false;
  const auto start = Clock::now();
  auto first = start;
  const auto on_output = [&](const RequestOutput& output) {
    if (result.token_ids.empty()) first = Clock::now();
    result.text += output.text;
    result.token_ids.insert(result.token_ids.end(), output.tokens.begin(), output.tokens.end());
    result.logprobs.insert(result.logprobs.end(), output.logprobs.begin(), output.logprobs.end());
    if (output.finished) {
      finished = true;
      result.finish_reason = *output.finished;
      result.decode_seconds = std::chrono::duration<double>(Clock::now() - first).count();
    }
    if (on_text && !output.text.empty()) on_text(output.text);
  };
  const int64_t id = engine_.submit(request, on_output);
  bool aborted = false;
  while (engine_.step()) {
    if (!finished && !aborted && cancelled != nullptr && cancelled->load()) {
      engine_.abort(id);
      aborted = true;
    }
  }
  result.first_token_seconds = std::chrono::duration<double>(first - start).count();
  return result;
}

}  // namespace ttpu::engine
