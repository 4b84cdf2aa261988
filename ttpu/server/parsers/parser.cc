#include "ttpu/server/parsers/parser.h"

#include <algorithm>
#include <array>

#include "ttpu/server/parsers/formats.h"

namespace ttpu::server {

const std::vector<ToolFormat>& tool_formats() {
  static const std::vector<ToolFormat> formats = {hermes_format(), mistral_format(),
                                                  llama3_json_format(), pythonic_format()};
  return formats;
}

const ToolFormat* find_tool_format(std::string_view name) {
  if (name == "gemma") name = "pythonic";
  if (name == "qwen" || name == "qwen3") name = "hermes";
  if (name == "llama4_json") name = "llama3_json";
  for (const ToolFormat& format : tool_formats()) {
    if (format.name == name) return &format;
  }
  return nullptr;
}

const ToolFormat* detect_tool_format(std::string_view chat_template) {
  for (const ToolFormat& format : tool_formats()) {
    for (const std::string_view mark : format.marks) {
      if (chat_template.find(mark) != std::string_view::npos) return &format;
    }
  }
  return nullptr;
}

std::optional<ToolCall> call_from_json(const Json& value) {
  if (!value.is_object()) return std::nullopt;
  const auto name = value.find("name");
  if (name == value.end() || !name->is_string()) return std::nullopt;
  ToolCall call{name->get<std::string>(), Json::object()};
  for (const char* key : {"arguments", "parameters"}) {
    const auto found = value.find(key);
    if (found == value.end()) continue;
    call.arguments = *found;
    if (found->is_string()) {
      call.arguments = Json::parse(found->get<std::string>(), nullptr, false);
    }
    break;
  }
  if (!call.arguments.is_object()) return std::nullopt;
  return call;
}

std::optional<std::vector<ToolCall>> calls_from_list(const std::string& text) {
  const Json list = Json::parse(text, nullptr, false);
  if (!list.is_array()) return std::nullopt;
  std::vector<ToolCall> calls;
  for (const Json& item : list) {
    auto call = call_from_json(item);
    if (!call) return std::nullopt;
    calls.push_back(std::move(*call));
  }
  return calls;
}

bool MarkFinder::push(std::string_view text, std::string& before) {
  held_ += text;
  const size_t at = held_.find(mark_);
  if (at != std::string::npos) {
    before.append(held_, 0, at);
    held_.erase(0, at + mark_.size());
    return true;
  }
  size_t keep = std::min(held_.size(), mark_.size() - 1);
  while (keep > 0 && !mark_.starts_with(std::string_view(held_).substr(held_.size() - keep)))
    --keep;
  before.append(held_, 0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return false;
}

std::string MarkFinder::rest() { return std::exchange(held_, std::string()); }

ReasoningParser::ReasoningParser(bool open) : state_(open ? State::kThinking : State::kStart) {}

void ReasoningParser::add_content(std::string_view text, Reasoned& out) {
  if (trim_) {
    text.remove_prefix(std::min(text.find_first_not_of("\r\n"), text.size()));
    trim_ = text.empty();
  }
  out.content += text;
}

Reasoned ReasoningParser::push(std::string_view text) {
  constexpr std::string_view kBegin = "<think>";
  Reasoned out;
  std::string piece(text);
  if (state_ == State::kStart) {
    held_ += piece;
    const size_t begin = std::min(held_.find_first_not_of(" \r\n"), held_.size());
    const std::string_view seen = std::string_view(held_).substr(begin);
    if (seen.size() < kBegin.size() && kBegin.starts_with(seen)) return out;
    const bool thinks = seen.starts_with(kBegin);
    state_ = thinks ? State::kThinking : State::kSaid;
    piece = thinks ? std::string(seen.substr(kBegin.size())) : held_;
    held_.clear();
  }
  if (state_ == State::kThinking) {
    if (!end_.push(piece, out.reasoning)) return out;
    state_ = State::kSaid;
    trim_ = true;
    piece = end_.rest();
  }
  add_content(piece, out);
  return out;
}

Reasoned ReasoningParser::finish() {
  Reasoned out;
  if (state_ == State::kStart) out.content = std::exchange(held_, std::string());
  if (state_ == State::kThinking) out.reasoning = end_.rest();
  return out;
}

bool is_reasoning_parser(std::string_view name) {
  static constexpr std::array<std::string_view, 3> kNames = {"deepseek_r1", "qwen3", "think"};
  return std::find(kNames.begin(), kNames.end(), name) != kNames.end();
}

}  // namespace ttpu::server
