#include "ttpu/server/chat.h"

#include <algorithm>
#include <array>
#include <ctime>

#include "ttpu/server/ids.h"
#include "ttpu/server/logprobs.h"
#include "ttpu/server/structured.h"
#include "ttpu/server/tools.h"

namespace ttpu::server {
namespace {

constexpr std::array<std::string_view, 6> kRoles = {"system",    "developer", "user",
                                                    "assistant", "tool",      "function"};

[[noreturn]] void wrong_message(size_t index, std::string_view field, std::string_view what) {
  const std::string place = fmt::format("messages[{}]{}{}", index, field.empty() ? "" : ".", field);
  throw ApiError(400, fmt::format("`{}` {}", place, what), place);
}

// A string, or a list of parts of text; templates get strings.
std::string text_of_content(const Json& content, size_t index) {
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array()) {
    wrong_message(index, "content", "must be a string or a list of parts");
  }
  std::string text;
  for (const Json& part : content) {
    const bool is_text = part.is_object() && part.value("type", Json()) == "text" &&
                         part.contains("text") && part["text"].is_string();
    if (!is_text) {
      wrong_message(index, "content",
                    "has a part that is not {\"type\": \"text\", \"text\": \"...\"}; other kinds "
                    "are not served");
    }
    if (!text.empty()) text += '\n';
    text += part["text"].get<std::string>();
  }
  return text;
}

// Templates see the arguments of a call as an object; clients send them as text.
void open_arguments(Json& calls, size_t index) {
  if (!calls.is_array()) wrong_message(index, "tool_calls", "must be a list");
  for (Json& call : calls) {
    if (!call.is_object() || !call.contains("function") || !call["function"].is_object()) {
      wrong_message(index, "tool_calls", "has a call without `function`");
    }
    Json& function = call["function"];
    if (!function.contains("arguments") || !function["arguments"].is_string()) continue;
    const std::string text = function["arguments"].get<std::string>();
    try {
      function["arguments"] = text.empty() ? Json::object() : parse_json(text, "arguments");
    } catch (const Error&) {
      wrong_message(index, "tool_calls", "has arguments that are not JSON");
    }
  }
}

Json read_messages(Fields& fields, const ModelFacts& facts) {
  const Json* given = fields.array("messages");
  if (given == nullptr) fields.wrong("messages", "is missing");
  if (given->empty()) fields.wrong("messages", "is empty");
  Json messages = *given;
  size_t bytes = 0;
  for (size_t i = 0; i < messages.size(); ++i) {
    Json& message = messages[i];
    if (!message.is_object()) wrong_message(i, "", "must be an object");
    const auto role = message.find("role");
    const bool known = role != message.end() && role->is_string() &&
                       std::find(kRoles.begin(), kRoles.end(),
                                 role->get_ref<const std::string&>()) != kRoles.end();
    if (!known) wrong_message(i, "role", "must be one of system, developer, user, assistant, tool");
    const bool calls = message.contains("tool_calls") && !message["tool_calls"].is_null();
    if (calls) {
      open_arguments(message["tool_calls"], i);
    } else {
      message.erase("tool_calls");  // templates ask whether it is there
    }
    const auto content = message.find("content");
    if (content != message.end() && !content->is_null()) {
      *content = text_of_content(*content, i);
      bytes += content->get_ref<const std::string&>().size();
    } else if (calls) {
      message["content"] = "";
    } else {
      wrong_message(i, "content", "is missing");
    }
  }
  check_prompt_bytes(bytes, facts, "messages");
  return messages;
}

class ChatFormat final : public AnswerFormat {
 public:
  ChatFormat(const Json& body, const ModelFacts& facts);

  std::vector<Json> stream(size_t index, Choice& choice,
                           const engine::RequestOutput& output) override;
  std::vector<Json> end_stream(const std::vector<Choice>&, const Usage& usage) override {
    return usage_event("chat.completion.chunk", usage);
  }
  Json whole(std::vector<Choice>& choices, const Usage& usage) override;

 private:
  void read_logprobs(Fields& fields);
  Json event(size_t index, Json delta) const;

  bool logprobs_ = false;
  AnswerReading reading_;
  std::vector<AnswerReading::Reader> readers_;  // of the choices that are streamed
};

ChatFormat::ChatFormat(const Json& body, const ModelFacts& facts) : AnswerFormat(*facts.text) {
  id_ = random_id("chatcmpl-");
  created_ = std::time(nullptr);
  Fields fields(body);
  request.model = read_model(fields, facts);
  read_common(fields, facts, request);
  read_logprobs(fields);
  request.prompts.push_back(read_conversation(fields, facts));
  auto max_tokens = fields.integer("max_tokens");
  if (const auto newer = fields.integer("max_completion_tokens")) max_tokens = newer;
  fields.ignore({"parallel_tool_calls", "verbosity"});
  read_response_format(fields, "response_format", false, request.sampling);
  reading_ = AnswerReading(fields, facts, request);
  for (size_t i = 0; i < request.choices(); ++i) readers_.emplace_back(reading_);
  fields.refuse("modalities", "answers are text", {Json::array({"text"})});
  fields.refuse("echo", "is a field of /v1/completions", {false});
  fields.refuse("functions", "use `tools`");
  fields.refuse("function_call", "use `tools`", {"none", "auto"});
  fields.finish();
  check_prompt_tokens(facts, request, "messages");
  set_max_tokens(max_tokens, facts.max_model_len, facts, request);
  if (request.no_answer) fields.wrong("max_tokens", "is 0, expected at least 1");
}

void ChatFormat::read_logprobs(Fields& fields) {
  if (const auto wanted = fields.boolean("logprobs")) logprobs_ = *wanted;
  const auto top = fields.integer("top_logprobs");
  if (top && !logprobs_) fields.wrong("top_logprobs", "is given, and `logprobs` is not true");
  if (top && (*top < 0 || *top > 20)) {
    fields.wrong("top_logprobs", fmt::format("is {}, expected 0 to 20", *top));
  }
  if (logprobs_) request.sampling.logprobs = top.value_or(0);
}

Json ChatFormat::event(size_t index, Json delta) const {
  Json out = head("chat.completion.chunk");
  out["choices"] = Json::array({{{"index", index},
                                 {"delta", std::move(delta)},
                                 {"logprobs", nullptr},
                                 {"finish_reason", nullptr}}});
  return out;
}

// `calls`: of the answer, before these.
Json delta(const AnswerReading::Piece& piece, size_t calls) {
  Json out = Json::object();
  if (!piece.reasoning.empty()) out["reasoning_content"] = piece.reasoning;
  if (!piece.content.empty() || (piece.reasoning.empty() && piece.calls.empty())) {
    out["content"] = piece.content;
  }
  for (const ToolCall& call : piece.calls) {
    Json json = tool_call_json(call);
    json["index"] = calls++;
    out["tool_calls"].push_back(std::move(json));
  }
  return out;
}

const char* finish_reason(engine::FinishReason reason, size_t calls) {
  return calls > 0 && reason == engine::FinishReason::kStop ? "tool_calls" : to_string(reason);
}

std::vector<Json> ChatFormat::stream(size_t index, Choice& choice,
                                     const engine::RequestOutput& output) {
  std::vector<Json> events;
  if (!choice.begun) {
    choice.begun = true;
    events.push_back(event(index, {{"role", "assistant"}, {"content", ""}}));
    if (request.return_token_ids) events.back()["prompt_token_ids"] = request.prompts[0];
    if (request.sampling.prompt_logprobs >= 0) {
      events.back()["prompt_logprobs"] = prompt_logprobs(choice.prompt_logprobs, text_.tokenizer());
    }
  }
  AnswerReading::Reader& reader = readers_[index];
  const size_t calls = reader.calls();
  const AnswerReading::Piece piece = reader.push(output.text, output.finished.has_value());
  if (!piece.empty() || (!output.tokens.empty() && (logprobs_ || request.return_token_ids))) {
    events.push_back(event(index, delta(piece, calls)));
    Json& part = events.back()["choices"][0];
    if (logprobs_) part["logprobs"] = chat_logprobs(output.logprobs, text_.tokenizer());
    if (request.return_token_ids) part["token_ids"] = output.tokens;
  }
  if (output.finished) {
    events.push_back(event(index, Json::object()));
    Json& part = events.back()["choices"][0];
    part["finish_reason"] = finish_reason(*output.finished, reader.calls());
    part["stop_reason"] = stop_reason(choice);
  }
  return events;
}

Json ChatFormat::whole(std::vector<Choice>& choices, const Usage& usage) {
  Json out = head("chat.completion");
  Json& list = out["choices"] = Json::array();
  for (size_t i = 0; i < choices.size(); ++i) {
    const Choice& choice = choices[i];
    const AnswerReading::Piece piece = readers_[i].push(choice.text, true);
    Json message = {{"role", "assistant"}, {"content", piece.content}, {"refusal", nullptr}};
    if (!piece.reasoning.empty()) message["reasoning_content"] = piece.reasoning;
    if (!piece.calls.empty()) {
      if (piece.content.empty()) message["content"] = nullptr;
      for (const ToolCall& call : piece.calls)
        message["tool_calls"].push_back(tool_call_json(call));
    }
    Json entry = {{"index", i},
                  {"message", std::move(message)},
                  {"logprobs", nullptr},
                  {"finish_reason", finish_reason(*choice.finished, piece.calls.size())},
                  {"stop_reason", stop_reason(choice)}};
    if (logprobs_) entry["logprobs"] = chat_logprobs(choice.logprobs, text_.tokenizer());
    if (request.return_token_ids) entry["token_ids"] = choice.tokens;
    list.push_back(std::move(entry));
  }
  if (request.sampling.prompt_logprobs >= 0) {
    out["prompt_logprobs"] = prompt_logprobs(choices[0].prompt_logprobs, text_.tokenizer());
  }
  if (request.return_token_ids) out["prompt_token_ids"] = request.prompts[0];
  out["usage"] = usage.json();
  return out;
}

}  // namespace

std::vector<int32_t> read_conversation(Fields& fields, const ModelFacts& facts) {
  const Json messages = read_messages(fields, facts);
  text::RenderOptions options;
  options.variables = Json::object();
  if (const Json* variables = fields.object("chat_template_kwargs")) options.variables = *variables;
  if (const auto effort = fields.string("reasoning_effort")) {
    options.variables["reasoning_effort"] = *effort;
  }
  if (const Json* documents = fields.array("documents")) options.documents = *documents;
  options.add_generation_prompt = fields.boolean("add_generation_prompt").value_or(true);
  options.continue_final_message = fields.boolean("continue_final_message").value_or(false);
  if (options.continue_final_message && options.add_generation_prompt) {
    fields.wrong("continue_final_message", "needs `add_generation_prompt` to be false");
  }
  options.tools = read_tools(fields);
  try {
    return facts.text->encode_chat(messages, std::move(options));
  } catch (const Error& error) {
    throw to_api_error(error, "messages");
  }
}

std::unique_ptr<AnswerFormat> read_chat(const Json& body, const ModelFacts& facts) {
  return std::make_unique<ChatFormat>(body, facts);
}

}  // namespace ttpu::server
