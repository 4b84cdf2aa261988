#include "ttpu/server/answer.h"

#include <algorithm>

namespace ttpu::server {

void Choice::add(const engine::RequestOutput& output) {
  text += output.text;
  tokens.insert(tokens.end(), output.tokens.begin(), output.tokens.end());
  logprobs.insert(logprobs.end(), output.logprobs.begin(), output.logprobs.end());
  if (!output.prompt_logprobs.empty()) prompt_logprobs = output.prompt_logprobs;
  cached_tokens = std::max(cached_tokens, output.cached_tokens);
  finished = output.finished;
  stop = output.stop;
}

Json Usage::json() const {
  return {{"prompt_tokens", prompt_tokens},
          {"completion_tokens", completion_tokens},
          {"total_tokens", prompt_tokens + completion_tokens},
          {"prompt_tokens_details", {{"cached_tokens", cached_tokens}}}};
}

Json AnswerFormat::head(const char* object) const {
  return {{"id", id_}, {"object", object}, {"created", created_}, {"model", request.model}};
}

std::vector<Json> AnswerFormat::usage_event(const char* object, const Usage& usage) const {
  if (!request.include_usage) return {};
  Json event = head(object);
  event["choices"] = Json::array();
  event["usage"] = usage.json();
  return {std::move(event)};
}

// As vLLM: the stop string or token that the request named; null for the model's own end.
Json AnswerFormat::stop_reason(const Choice& choice) const {
  if (choice.finished != engine::FinishReason::kStop) return nullptr;
  const engine::SamplingParams& sampling = request.sampling;
  const auto& stops = sampling.stop;
  if (std::find(stops.begin(), stops.end(), choice.stop) != stops.end()) return choice.stop;
  for (const int32_t token : sampling.stop_token_ids) {
    if (choice.stop == std::to_string(token)) return token;
  }
  return nullptr;
}

}  // namespace ttpu::server
