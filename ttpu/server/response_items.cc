#include "ttpu/server/response_items.h"

#include <utility>

#include "ttpu/server/ids.h"

namespace ttpu::server {
namespace {

// Parts of text have other names here than in a chat.
Json chat_content(Json content) {
  if (!content.is_array()) return content;
  for (Json& part : content) {
    const Json type = part.is_object() ? part.value("type", Json()) : Json();
    if (type == "input_text" || type == "output_text") part["type"] = "text";
  }
  return content;
}

std::optional<std::string> add_call(const Json& item, Json& messages) {
  const auto is_text = [&](const char* name) {
    return item.contains(name) && item[name].is_string();
  };
  if (!is_text("call_id") || !is_text("name") || !is_text("arguments")) {
    return "has a function_call without `call_id`, `name` and `arguments`, which are texts";
  }
  if (messages.empty() || messages.back().value("role", Json()) != "assistant") {
    messages.push_back({{"role", "assistant"}, {"content", ""}});
  }
  messages.back()["tool_calls"].push_back(
      {{"id", item["call_id"]},
       {"type", "function"},
       {"function", {{"name", item["name"]}, {"arguments", item["arguments"]}}}});
  return std::nullopt;
}

}  // namespace

std::optional<std::string> add_input_item(const Json& item, Json& messages) {
  if (!item.is_object()) return "has an item that is no object";
  const Json type = item.value("type", Json("message"));
  if (type == "function_call") return add_call(item, messages);
  if (type == "reasoning") return std::nullopt;
  if (type == "function_call_output") {
    if (!item.contains("call_id") || !item["call_id"].is_string() || !item.contains("output")) {
      return "has a function_call_output without `call_id` and `output`";
    }
    messages.push_back({{"role", "tool"},
                        {"tool_call_id", item["call_id"]},
                        {"content", chat_content(item["output"])}});
    return std::nullopt;
  }
  if (type != "message") {
    return "has an item that is no message, function_call, function_call_output or reasoning";
  }
  Json message = item;
  for (const char* name : {"type", "id", "status", "tool_calls"}) message.erase(name);
  if (message.contains("content")) message["content"] = chat_content(message["content"]);
  messages.push_back(std::move(message));
  return std::nullopt;
}

void ResponseItems::add(const AnswerReading::Piece& piece) {
  reasoning_ += piece.reasoning;
  if (!piece.reasoning.empty()) say(Open::kReasoning, piece.reasoning);
  if (open_ != Open::kMessage) {
    blank_ += piece.content;
    if (blank_.find_first_not_of(" \t\r\n") != std::string::npos) {
      say(Open::kMessage, std::exchange(blank_, {}));
    }
  } else if (!piece.content.empty()) {
    say(Open::kMessage, piece.content);
  }
  for (const ToolCall& one : piece.calls) call(one);
}

void ResponseItems::finish(bool cut) {
  if (items_.empty()) say(Open::kMessage, blank_);
  close(cut);
}

void ResponseItems::say(Open kind, const std::string& text) {
  if (open_ != kind) {
    close();
    open(kind);
  }
  text_ += text;
  if (text.empty()) return;
  Json rest = place();
  rest["delta"] = text;
  if (kind == Open::kMessage) rest["logprobs"] = Json::array();
  emit_(kind == Open::kMessage ? "response.output_text.delta" : "response.reasoning_text.delta",
        std::move(rest));
}

Json ResponseItems::place() const {
  return {
      {"item_id", items_.back()["id"]}, {"output_index", items_.size() - 1}, {"content_index", 0}};
}

Json ResponseItems::part() const {
  if (open_ == Open::kReasoning) return {{"type", "reasoning_text"}, {"text", text_}};
  return {{"type", "output_text"}, {"text", text_}, {"annotations", Json::array()}};
}

void ResponseItems::open(Open kind) {
  open_ = kind;
  text_.clear();
  if (kind == Open::kMessage) {
    items_.push_back({{"id", random_id("msg_")}, {"type", "message"}, {"role", "assistant"}});
  } else {
    items_.push_back({{"id", random_id("rs_")}, {"type", "reasoning"}, {"summary", Json::array()}});
  }
  items_.back()["status"] = "in_progress";
  items_.back()["content"] = Json::array();
  emit_("response.output_item.added",
        {{"output_index", items_.size() - 1}, {"item", items_.back()}});
  Json rest = place();
  rest["part"] = part();
  emit_("response.content_part.added", std::move(rest));
}

void ResponseItems::close(bool cut) {
  if (open_ == Open::kNone) return;
  Json done = place();
  done["text"] = text_;
  if (open_ == Open::kMessage) done["logprobs"] = Json::array();
  emit_(open_ == Open::kMessage ? "response.output_text.done" : "response.reasoning_text.done",
        std::move(done));
  Json rest = place();
  rest["part"] = part();
  emit_("response.content_part.done", std::move(rest));
  items_.back()["status"] = cut ? "incomplete" : "completed";
  items_.back()["content"].push_back(part());
  emit_("response.output_item.done",
        {{"output_index", items_.size() - 1}, {"item", items_.back()}});
  open_ = Open::kNone;
}

void ResponseItems::call(const ToolCall& call) {
  close();
  blank_.clear();
  const Json chat = tool_call_json(call);
  const Json& arguments = chat["function"]["arguments"];
  items_.push_back({{"id", random_id("fc_")},
                    {"type", "function_call"},
                    {"call_id", chat["id"]},
                    {"name", call.name},
                    {"arguments", ""},
                    {"status", "in_progress"}});
  Json& item = items_.back();
  const Json of_item = {{"item_id", item["id"]}, {"output_index", items_.size() - 1}};
  emit_("response.output_item.added", {{"output_index", items_.size() - 1}, {"item", item}});
  Json rest = of_item;
  rest["delta"] = arguments;
  emit_("response.function_call_arguments.delta", rest);
  rest = of_item;
  rest["name"] = call.name;
  rest["arguments"] = arguments;
  emit_("response.function_call_arguments.done", rest);
  item["arguments"] = arguments;
  item["status"] = "completed";
  emit_("response.output_item.done", {{"output_index", items_.size() - 1}, {"item", item}});
}

}  // namespace ttpu::server
