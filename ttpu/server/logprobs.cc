#include "ttpu/server/logprobs.h"

#include <algorithm>

namespace ttpu::server {
namespace {

// JSON has no infinity; OpenAI writes this.
double finite(double logprob) { return std::max(logprob, -9999.0); }

std::string text_of(int32_t token, const text::Tokenizer& tokenizer) {
  return tokenizer.decode(std::span(&token, 1), false);
}

size_t characters(const std::string& text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

Json chat_token(int32_t token, double logprob, const text::Tokenizer& tokenizer) {
  const std::string text = text_of(token, tokenizer);
  Json bytes = Json::array();
  for (const char c : text) bytes.push_back(static_cast<unsigned char>(c));
  return {{"token", text}, {"logprob", finite(logprob)}, {"bytes", std::move(bytes)}};
}

}  // namespace

Json chat_logprobs(const std::vector<engine::TokenLogprobs>& steps,
                   const text::Tokenizer& tokenizer) {
  Json content = Json::array();
  for (const engine::TokenLogprobs& step : steps) {
    Json entry = chat_token(step.token, step.logprob, tokenizer);
    Json& top = entry["top_logprobs"] = Json::array();
    for (const auto& [token, logprob] : step.top) {
      top.push_back(chat_token(token, logprob, tokenizer));
    }
    content.push_back(std::move(entry));
  }
  return {{"content", std::move(content)}};
}

CompletionLogprobs::CompletionLogprobs(const text::Tokenizer& tokenizer, size_t* offset)
    : tokenizer_(tokenizer),
      offset_(offset),
      json_({{"text_offset", Json::array()},
             {"token_logprobs", Json::array()},
             {"tokens", Json::array()},
             {"top_logprobs", Json::array()}}) {}

void CompletionLogprobs::add(int32_t token) {
  const std::string text = text_of(token, tokenizer_);
  json_["text_offset"].push_back(*offset_);
  json_["token_logprobs"].push_back(nullptr);
  json_["tokens"].push_back(text);
  json_["top_logprobs"].push_back(nullptr);
  *offset_ += characters(text);
}

void CompletionLogprobs::add(const engine::TokenLogprobs& step) {
  const std::string text = text_of(step.token, tokenizer_);
  Json top = Json::object();
  for (const auto& [token, logprob] : step.top) {
    // Two tokens may have one text, such as the halves of a character: the likelier one stays.
    const std::string name = text_of(token, tokenizer_);
    if (!top.contains(name)) top[name] = finite(logprob);
  }
  if (!top.contains(text)) top[text] = finite(step.logprob);
  json_["text_offset"].push_back(*offset_);
  json_["token_logprobs"].push_back(finite(step.logprob));
  json_["tokens"].push_back(text);
  json_["top_logprobs"].push_back(std::move(top));
  *offset_ += characters(text);
}

Json prompt_logprobs(const std::vector<engine::TokenLogprobs>& steps,
                     const text::Tokenizer& tokenizer) {
  Json out = Json::array({nullptr});
  for (const engine::TokenLogprobs& step : steps) {
    Json entry = Json::object();
    const auto add = [&](int32_t token, double logprob, Json rank) {
      Json& place = entry[std::to_string(token)];
      if (!place.is_null()) return;
      place = {{"logprob", finite(logprob)},
               {"rank", std::move(rank)},
               {"decoded_token", text_of(token, tokenizer)}};
    };
    for (size_t i = 0; i < step.top.size(); ++i) add(step.top[i].first, step.top[i].second, i + 1);
    add(step.token, step.logprob, nullptr);
    out.push_back(std::move(entry));
  }
  return out;
}

}  // namespace ttpu::server
