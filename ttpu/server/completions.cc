#include "ttpu/server/completions.h"

#include <algorithm>
#include <ctime>

#include "ttpu/server/ids.h"
#include "ttpu/server/logprobs.h"
#include "ttpu/server/structured.h"

namespace ttpu::server {
namespace {

constexpr int64_t kDefaultTokens = 16;  // OpenAI's

class CompletionFormat final : public AnswerFormat {
 public:
  CompletionFormat(const Json& body, const ModelFacts& facts);

  std::vector<Json> stream(size_t index, Choice& choice,
                           const engine::RequestOutput& output) override;
  std::vector<Json> end_stream(const std::vector<Choice>&, const Usage& usage) override {
    return usage_event("text_completion", usage);
  }
  Json whole(std::vector<Choice>& choices, const Usage& usage) override;

 private:
  void read_prompt(Fields& fields, const ModelFacts& facts);
  void add_prompt(std::vector<int32_t> tokens, std::string text);
  Json choice_json(size_t index, Choice& choice, std::string text,
                   const std::vector<engine::TokenLogprobs>& logprobs) const;
  const std::vector<int32_t>& prompt(size_t choice) const {
    return request.prompts[choice / static_cast<size_t>(request.n)];
  }

  bool echo_ = false;
  bool logprobs_ = false;
};

CompletionFormat::CompletionFormat(const Json& body, const ModelFacts& facts)
    : AnswerFormat(*facts.text) {
  id_ = random_id("cmpl-");
  created_ = std::time(nullptr);
  Fields fields(body);
  request.model = read_model(fields, facts);
  read_common(fields, facts, request);
  if (const auto echo = fields.boolean("echo")) echo_ = *echo;
  if (const auto logprobs = fields.integer("logprobs")) {
    if (*logprobs < 0) fields.wrong("logprobs", "is negative");
    logprobs_ = true;
    request.sampling.logprobs = *logprobs;
    if (echo_ && request.sampling.prompt_logprobs < 0) request.sampling.prompt_logprobs = *logprobs;
  }
  read_prompt(fields, facts);
  const auto max_tokens = fields.integer("max_tokens");
  read_response_format(fields, "response_format", false, request.sampling);
  fields.refuse("suffix", "models that fill in the middle are not served", {""});
  fields.finish();
  check_prompt_tokens(facts, request, "prompt");
  set_max_tokens(max_tokens, kDefaultTokens, facts, request);
}

void CompletionFormat::add_prompt(std::vector<int32_t> tokens, std::string text) {
  if (echo_) {
    request.prompt_texts.push_back(text.empty() ? text_.tokenizer().decode(tokens)
                                                : std::move(text));
  }
  request.prompts.push_back(std::move(tokens));
}

void CompletionFormat::read_prompt(Fields& fields, const ModelFacts& facts) {
  bool special = true;
  if (const auto given = fields.boolean("add_special_tokens")) special = *given;
  read_prompts(
      fields, "prompt", facts, facts.max_prompts,
      [&](const std::string& text) { add_prompt(text_.tokenizer().encode(text, special), text); },
      [&](std::vector<int32_t> tokens) { add_prompt(std::move(tokens), ""); });
  for (const auto& tokens : request.prompts) {
    if (tokens.empty()) fields.wrong("prompt", "is empty");
  }
}

Json CompletionFormat::choice_json(size_t index, Choice& choice, std::string text,
                                   const std::vector<engine::TokenLogprobs>& logprobs) const {
  const bool first = !choice.begun;
  choice.begun = true;
  Json out = {{"index", index}, {"text", ""}, {"logprobs", nullptr}};
  if (first && echo_) text.insert(0, request.prompt_texts[index / static_cast<size_t>(request.n)]);
  out["text"] = std::move(text);
  if (logprobs_) {
    CompletionLogprobs list(text_.tokenizer(), &choice.offset);
    if (first && echo_) {
      list.add(prompt(index).front());
      for (const auto& step : choice.prompt_logprobs) list.add(step);
    }
    for (const auto& step : logprobs) list.add(step);
    out["logprobs"] = list.json();
  }
  out["finish_reason"] = choice.finished ? Json(to_string(*choice.finished)) : Json();
  out["stop_reason"] = stop_reason(choice);
  if (first && request.sampling.prompt_logprobs >= 0) {
    out["prompt_logprobs"] = prompt_logprobs(choice.prompt_logprobs, text_.tokenizer());
  }
  if (first && request.return_token_ids) out["prompt_token_ids"] = prompt(index);
  return out;
}

std::vector<Json> CompletionFormat::stream(size_t index, Choice& choice,
                                           const engine::RequestOutput& output) {
  const bool silent = output.text.empty() && !output.finished && !logprobs_ &&
                      !request.return_token_ids && (choice.begun || !echo_);
  if (silent) return {};
  Json event = head("text_completion");
  Json part = choice_json(index, choice, output.text, output.logprobs);
  if (request.return_token_ids) part["token_ids"] = output.tokens;
  event["choices"] = Json::array({std::move(part)});
  return {std::move(event)};
}

Json CompletionFormat::whole(std::vector<Choice>& choices, const Usage& usage) {
  Json out = head("text_completion");
  Json& list = out["choices"] = Json::array();
  for (size_t i = 0; i < choices.size(); ++i) {
    list.push_back(choice_json(i, choices[i], choices[i].text, choices[i].logprobs));
    if (request.return_token_ids) list.back()["token_ids"] = choices[i].tokens;
  }
  out["usage"] = usage.json();
  return out;
}

}  // namespace

std::unique_ptr<AnswerFormat> read_completion(const Json& body, const ModelFacts& facts) {
  return std::make_unique<CompletionFormat>(body, facts);
}

}  // namespace ttpu::server
