#include "ttpu/server/responses.h"

#include <ctime>

#include "ttpu/server/chat.h"
#include "ttpu/server/ids.h"
#include "ttpu/server/structured.h"

namespace ttpu::server {
namespace {

class ResponseFormat final : public AnswerFormat {
 public:
  ResponseFormat(const Json& body, const ModelFacts& facts);

  std::vector<Json> stream(size_t index, Choice& choice,
                           const engine::RequestOutput& output) override;
  std::vector<Json> end_stream(const std::vector<Choice>& choices, const Usage& usage) override;
  Json whole(std::vector<Choice>& choices, const Usage& usage) override;
  bool done_marker() const override { return false; }

 private:
  void read_input(Fields& fields, const ModelFacts& facts);
  Json response(const char* status, Json output, const Json& usage) const;
  Json item(const char* status, Json content) const;
  Json finished_item(const Choice& choice) const;
  Json event(const char* type, Json rest);

  Json instructions_, metadata_, max_output_tokens_;
  Json format_ = {{"type", "text"}};
  std::string item_id_ = random_id("msg_");
  int64_t sequence_ = 0;
};

Json text_part(const std::string& text) {
  return {{"type", "output_text"}, {"text", text}, {"annotations", Json::array()}};
}

ResponseFormat::ResponseFormat(const Json& body, const ModelFacts& facts)
    : AnswerFormat(*facts.text), metadata_(Json::object()) {
  id_ = random_id("resp_");
  created_ = std::time(nullptr);
  Fields fields(body);
  request.model = read_model(fields, facts);
  if (const Json* metadata = fields.object("metadata")) metadata_ = *metadata;
  read_input(fields, facts);
  const auto most = fields.integer("max_output_tokens");
  if (most) max_output_tokens_ = *most;
  request.sampling = facts.defaults;
  if (const auto value = fields.number("temperature")) request.sampling.temperature = *value;
  if (const auto value = fields.number("top_p")) request.sampling.top_p = *value;
  request.stream = fields.boolean("stream").value_or(false);
  fields.ignore({"user", "store", "service_tier", "safety_identifier", "prompt_cache_key",
                 "prompt_cache_retention", "parallel_tool_calls", "reasoning", "stream_options"});
  fields.refuse("tools", "tools are served by /v1/chat/completions", {Json::array()});
  fields.refuse("tool_choice", "tools are served by /v1/chat/completions", {"none", "auto"});
  fields.refuse("previous_response_id", "answers are not stored; send the conversation in `input`");
  fields.refuse("conversation", "conversations are not stored; send it in `input`");
  fields.refuse("background", "answers are not stored", {false});
  fields.refuse("include", "is not offered", {Json::array()});
  fields.refuse("truncation", "a prompt is never cut", {"disabled"});
  if (auto text = fields.child("text")) {
    if (const Json* format = text->object("format")) format_ = *format;
    read_response_format(*text, "format", true, request.sampling);
    text->ignore({"verbosity"});
    text->finish();
  }
  fields.finish();
  check_prompt_tokens(facts, request, "input");
  if (most && *most < 1) fields.wrong("max_output_tokens", "must be at least 1");
  set_max_tokens(most, facts.max_model_len, facts, request);
}

// A text, or messages; their parts of text have other names than those of chat.
void ResponseFormat::read_input(Fields& fields, const ModelFacts& facts) {
  Json messages = Json::array();
  if (const auto instructions = fields.string("instructions")) {
    instructions_ = *instructions;
    messages.push_back({{"role", "system"}, {"content", *instructions}});
  }
  const Json* input = fields.find("input");
  if (input == nullptr) fields.wrong("input", "is missing");
  if (input->is_string()) {
    messages.push_back({{"role", "user"}, {"content", *input}});
  } else if (input->is_array() && !input->empty()) {
    for (Json item : *input) {
      const bool message = item.is_object() && item.value("type", Json("message")) == "message";
      if (!message) fields.wrong("input", "has an item that is not a message");
      for (const char* name : {"type", "id", "status"}) item.erase(name);
      if (item.contains("content") && item["content"].is_array()) {
        for (Json& part : item["content"]) {
          const Json type = part.is_object() ? part.value("type", Json()) : Json();
          if (type == "input_text" || type == "output_text") part["type"] = "text";
        }
      }
      messages.push_back(std::move(item));
    }
  } else {
    fields.wrong("input", "must be a text or a list of messages");
  }
  const Json conversation = {{"messages", std::move(messages)}};
  Fields inner(conversation);
  try {
    request.prompts.push_back(read_conversation(inner, facts));
  } catch (const ApiError& error) {
    throw ApiError(error.status(), error.what(), "input", error.code());
  }
}

Json ResponseFormat::response(const char* status, Json output, const Json& usage) const {
  const bool cut = std::string_view(status) == "incomplete";
  return {{"id", id_},
          {"object", "response"},
          {"created_at", created_},
          {"status", status},
          {"background", false},
          {"error", nullptr},
          {"incomplete_details", cut ? Json{{"reason", "max_output_tokens"}} : Json()},
          {"instructions", instructions_},
          {"max_output_tokens", max_output_tokens_},
          {"metadata", metadata_},
          {"model", request.model},
          {"output", std::move(output)},
          {"parallel_tool_calls", false},
          {"previous_response_id", nullptr},
          {"store", false},
          {"temperature", request.sampling.temperature},
          {"text", {{"format", format_}}},
          {"tool_choice", "none"},
          {"tools", Json::array()},
          {"top_p", request.sampling.top_p},
          {"truncation", "disabled"},
          {"usage", usage}};
}

Json ResponseFormat::item(const char* status, Json content) const {
  return {{"id", item_id_},
          {"type", "message"},
          {"role", "assistant"},
          {"status", status},
          {"content", std::move(content)}};
}

Json ResponseFormat::finished_item(const Choice& choice) const {
  return item(choice.finished == engine::FinishReason::kLength ? "incomplete" : "completed",
              Json::array({text_part(choice.text)}));
}

Json ResponseFormat::event(const char* type, Json rest) {
  Json out = {{"type", type}, {"sequence_number", sequence_++}};
  out.update(rest);
  return out;
}

std::vector<Json> ResponseFormat::stream(size_t, Choice& choice,
                                         const engine::RequestOutput& output) {
  std::vector<Json> events;
  if (!choice.begun) {
    choice.begun = true;
    const Json begun = {{"response", response("in_progress", Json::array(), nullptr)}};
    events.push_back(event("response.created", begun));
    events.push_back(event("response.in_progress", begun));
    events.push_back(event("response.output_item.added",
                           {{"output_index", 0}, {"item", item("in_progress", Json::array())}}));
    events.push_back(event("response.content_part.added", {{"item_id", item_id_},
                                                           {"output_index", 0},
                                                           {"content_index", 0},
                                                           {"part", text_part("")}}));
  }
  if (!output.text.empty()) {
    events.push_back(event("response.output_text.delta", {{"item_id", item_id_},
                                                          {"output_index", 0},
                                                          {"content_index", 0},
                                                          {"delta", output.text},
                                                          {"logprobs", Json::array()}}));
  }
  if (output.finished) {
    events.push_back(event("response.output_text.done", {{"item_id", item_id_},
                                                         {"output_index", 0},
                                                         {"content_index", 0},
                                                         {"text", choice.text},
                                                         {"logprobs", Json::array()}}));
    events.push_back(event("response.content_part.done", {{"item_id", item_id_},
                                                          {"output_index", 0},
                                                          {"content_index", 0},
                                                          {"part", text_part(choice.text)}}));
    events.push_back(
        event("response.output_item.done", {{"output_index", 0}, {"item", finished_item(choice)}}));
  }
  return events;
}

std::vector<Json> ResponseFormat::end_stream(const std::vector<Choice>& choices,
                                             const Usage& usage) {
  std::vector<Choice> copy = choices;
  Json body = whole(copy, usage);
  const bool cut = body["status"] == "incomplete";
  return {
      event(cut ? "response.incomplete" : "response.completed", {{"response", std::move(body)}})};
}

Json ResponseFormat::whole(std::vector<Choice>& choices, const Usage& usage) {
  const Choice& choice = choices.front();
  const bool cut = choice.finished == engine::FinishReason::kLength;
  return response(cut ? "incomplete" : "completed", Json::array({finished_item(choice)}),
                  {{"input_tokens", usage.prompt_tokens},
                   {"input_tokens_details", {{"cached_tokens", usage.cached_tokens}}},
                   {"output_tokens", usage.completion_tokens},
                   {"output_tokens_details", {{"reasoning_tokens", 0}}},
                   {"total_tokens", usage.prompt_tokens + usage.completion_tokens}});
}

}  // namespace

std::unique_ptr<AnswerFormat> read_response(const Json& body, const ModelFacts& facts) {
  return std::make_unique<ResponseFormat>(body, facts);
}

}  // namespace ttpu::server
