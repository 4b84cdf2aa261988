#include "ttpu/server/responses.h"

#include <ctime>
#include <optional>
#include <utility>

#include "ttpu/server/chat.h"
#include "ttpu/server/ids.h"
#include "ttpu/server/response_items.h"
#include "ttpu/server/structured.h"
#include "ttpu/server/tools.h"

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
  Json read_tool_fields(Fields& fields);
  Json read_messages(Fields& fields);
  void read_prompt(Fields& fields, const Json& conversation, const ModelFacts& facts);
  Json response(const char* status, Json output, const Json& usage) const;
  void event(const char* type, const Json& rest);

  Json instructions_, metadata_, max_output_tokens_;
  Json format_ = {{"type", "text"}};
  Json tools_ = Json::array();
  Json tool_choice_ = "auto";
  bool parallel_tool_calls_ = true;
  AnswerReading reading_;
  std::optional<AnswerReading::Reader> reader_;
  ResponseItems items_{[this](const char* type, const Json& rest) { event(type, rest); }};
  std::vector<Json> events_;  // that have not been sent
  int64_t sequence_ = 0;
};

// Chat wants a function's fields in an object of their own.
Json nested_function(const Json& flat) {
  Json function = flat;
  function.erase("type");
  return {{"type", "function"}, {"function", std::move(function)}};
}

ResponseFormat::ResponseFormat(const Json& body, const ModelFacts& facts)
    : AnswerFormat(*facts.text), metadata_(Json::object()) {
  id_ = random_id("resp_");
  created_ = std::time(nullptr);
  Fields fields(body);
  request.model = read_model(fields, facts);
  if (const Json* metadata = fields.object("metadata")) metadata_ = *metadata;
  Json conversation = read_tool_fields(fields);
  conversation["messages"] = read_messages(fields);
  const auto most = fields.integer("max_output_tokens");
  if (most) max_output_tokens_ = *most;
  request.sampling = facts.defaults;
  if (const auto value = fields.number("temperature")) request.sampling.temperature = *value;
  if (const auto value = fields.number("top_p")) request.sampling.top_p = *value;
  request.stream = fields.boolean("stream").value_or(false);
  fields.ignore({"user", "store", "service_tier", "safety_identifier", "prompt_cache_key",
                 "prompt_cache_retention", "reasoning", "stream_options"});
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
  read_prompt(fields, conversation, facts);
  reader_.emplace(reading_);
  check_prompt_tokens(facts, request, "input");
  if (most && *most < 1) fields.wrong("max_output_tokens", "must be at least 1");
  set_max_tokens(most, facts.max_model_len, facts, request);
}

// The fields of tools as those of a chat.
Json ResponseFormat::read_tool_fields(Fields& fields) {
  Json out = Json::object();
  if (const Json* tools = fields.array("tools")) {
    tools_ = *tools;
    for (const Json& tool : *tools) {
      if (!tool.is_object() || tool.value("type", Json()) != "function") {
        fields.wrong("tools",
                     "has one that is not {\"type\": \"function\", \"name\": ...}; tools "
                     "that a server runs itself are not offered");
      }
      out["tools"].push_back(nested_function(tool));
    }
  }
  if (const Json* choice = fields.find("tool_choice")) {
    tool_choice_ = *choice;
    out["tool_choice"] = choice->is_object() ? nested_function(*choice) : *choice;
  }
  if (const auto parallel = fields.boolean("parallel_tool_calls")) {
    parallel_tool_calls_ = *parallel;
    out["parallel_tool_calls"] = *parallel;
  }
  return out;
}

// `input` is a text or a list of items.
Json ResponseFormat::read_messages(Fields& fields) {
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
    for (const Json& item : *input) {
      if (const auto wrong = add_input_item(item, messages)) fields.wrong("input", *wrong);
    }
  } else {
    fields.wrong("input", "must be a text or a list of items");
  }
  return messages;
}

void ResponseFormat::read_prompt(Fields& fields, const Json& conversation,
                                 const ModelFacts& facts) {
  if (tool_choice_.is_object() && !tool_choice_.contains("name")) {
    fields.wrong("tool_choice",
                 "must be \"none\", \"auto\", \"required\" or {\"type\": "
                 "\"function\", \"name\": ...}");
  }
  Fields inner(conversation);
  try {
    request.prompts.push_back(read_conversation(inner, facts));
    reading_ = AnswerReading(inner, facts, request);
  } catch (const ApiError& error) {
    const bool of_messages = error.param().starts_with("messages");
    throw ApiError(error.status(), error.what(), of_messages ? "input" : error.param(),
                   error.code());
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
          {"parallel_tool_calls", parallel_tool_calls_},
          {"previous_response_id", nullptr},
          {"store", false},
          {"temperature", request.sampling.temperature},
          {"text", {{"format", format_}}},
          {"tool_choice", tool_choice_},
          {"tools", tools_},
          {"top_p", request.sampling.top_p},
          {"truncation", "disabled"},
          {"usage", usage}};
}

void ResponseFormat::event(const char* type, const Json& rest) {
  Json out = {{"type", type}, {"sequence_number", sequence_++}};
  out.update(rest);
  events_.push_back(std::move(out));
}

std::vector<Json> ResponseFormat::stream(size_t, Choice& choice,
                                         const engine::RequestOutput& output) {
  if (!choice.begun) {
    choice.begun = true;
    const Json begun = {{"response", response("in_progress", Json::array(), nullptr)}};
    event("response.created", begun);
    event("response.in_progress", begun);
  }
  items_.add(reader_->push(output.text, output.finished.has_value()));
  if (output.finished) items_.finish(output.finished == engine::FinishReason::kLength);
  return std::exchange(events_, {});
}

std::vector<Json> ResponseFormat::end_stream(const std::vector<Choice>& choices,
                                             const Usage& usage) {
  std::vector<Choice> copy = choices;
  Json body = whole(copy, usage);
  const bool cut = body["status"] == "incomplete";
  event(cut ? "response.incomplete" : "response.completed", {{"response", std::move(body)}});
  return std::exchange(events_, {});
}

Json ResponseFormat::whole(std::vector<Choice>& choices, const Usage& usage) {
  const Choice& choice = choices.front();
  const bool cut = choice.finished == engine::FinishReason::kLength;
  if (!choice.begun) {  // nothing was streamed
    items_.add(reader_->push(choice.text, true));
    items_.finish(cut);
  }
  // The text of a thought, in tokens; how it was cut into them is not kept.
  const std::string& thought = items_.reasoning();
  const size_t reasoning =
      thought.empty() ? 0 : text_.tokenizer().encode(thought, /*add_special_tokens=*/false).size();
  return response(cut ? "incomplete" : "completed", items_.items(),
                  {{"input_tokens", usage.prompt_tokens},
                   {"input_tokens_details", {{"cached_tokens", usage.cached_tokens}}},
                   {"output_tokens", usage.completion_tokens},
                   {"output_tokens_details", {{"reasoning_tokens", reasoning}}},
                   {"total_tokens", usage.prompt_tokens + usage.completion_tokens}});
}

}  // namespace

std::unique_ptr<AnswerFormat> read_response(const Json& body, const ModelFacts& facts) {
  return std::make_unique<ResponseFormat>(body, facts);
}

}  // namespace ttpu::server
