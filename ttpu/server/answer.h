// Answers as they grow, and how an API says them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ttpu/base/json.h"
#include "ttpu/engine/request.h"
#include "ttpu/server/generation_request.h"

namespace ttpu::server {

struct Choice {
  std::string text;
  std::vector<int32_t> tokens;
  std::vector<engine::TokenLogprobs> logprobs;
  std::vector<engine::TokenLogprobs> prompt_logprobs;
  std::optional<engine::FinishReason> finished;
  std::string stop;           // what ended it, as the engine says
  int64_t cached_tokens = 0;  // of its prompt
  size_t offset = 0;          // characters that log probabilities have been given for
  bool begun = false;         // something has been streamed

  void add(const engine::RequestOutput& output);
};

struct Usage {
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
  int64_t cached_tokens = 0;
  Json json() const;
};

// One request's answer in the words of an API. An event is the object of one `data:` line.
class AnswerFormat {
 public:
  explicit AnswerFormat(const engine::TextProcessor& text) : text_(text) {}
  virtual ~AnswerFormat() = default;
  AnswerFormat(const AnswerFormat&) = delete;
  AnswerFormat& operator=(const AnswerFormat&) = delete;

  // The events of what is new; `choice` has it already.
  virtual std::vector<Json> stream(size_t index, Choice& choice,
                                   const engine::RequestOutput& output) = 0;
  // The events once all is said.
  virtual std::vector<Json> end_stream(const std::vector<Choice>& choices, const Usage& usage) = 0;
  virtual Json whole(std::vector<Choice>& choices, const Usage& usage) = 0;
  // Whether a stream ends with `data: [DONE]`.
  virtual bool done_marker() const { return true; }

  GenerationRequest request;

 protected:
  // id, object, created, model
  Json head(const char* object) const;
  Json stop_reason(const Choice& choice) const;
  // The event with the usage alone, when the request wants it.
  std::vector<Json> usage_event(const char* object, const Usage& usage) const;

  const engine::TextProcessor& text_;
  std::string id_;
  int64_t created_ = 0;
};

}  // namespace ttpu::server
