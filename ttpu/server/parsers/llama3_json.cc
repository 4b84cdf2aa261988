// Llama 3: the whole answer is {"name": ..., "parameters": {...}}, or several with `;` between.
#include "ttpu/server/parsers/formats.h"

namespace ttpu::server {
namespace {

constexpr std::string_view kTag = "<|python_tag|>";

// The end of the JSON object that the text begins with; npos where it has none.
size_t object_end(std::string_view text) {
  size_t depth = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (quoted) {
      if (text[i] == '\\')
        ++i;
      else if (text[i] == '"')
        quoted = false;
    } else if (text[i] == '"') {
      quoted = true;
    } else if (text[i] == '{') {
      ++depth;
    } else if (text[i] == '}' && --depth == 0) {
      return i + 1;
    }
  }
  return std::string_view::npos;
}

class Llama3Parser final : public LeadingParser {
  std::optional<bool> begins(std::string_view text) const override {
    if (text.starts_with("{") || text.starts_with(kTag)) return true;
    if (text.size() < kTag.size() && kTag.starts_with(text)) return std::nullopt;
    return false;
  }
  std::optional<std::vector<ToolCall>> read(const std::string& text) const override {
    std::vector<ToolCall> calls;
    std::string_view rest = text;
    const auto skip = [&](std::string_view what) {
      rest.remove_prefix(std::min(rest.find_first_not_of(what), rest.size()));
    };
    skip(" \t\r\n");
    if (rest.starts_with(kTag)) rest.remove_prefix(kTag.size());
    for (skip(" \t\r\n"); !rest.empty(); skip("; \t\r\n")) {
      if (rest[0] != '{') return std::nullopt;
      const size_t end = object_end(rest);
      if (end == std::string_view::npos) return std::nullopt;
      auto call = call_from_json(Json::parse(rest.substr(0, end), nullptr, false));
      if (!call) return std::nullopt;
      calls.push_back(std::move(*call));
      rest.remove_prefix(end);
    }
    return calls;
  }
};

}  // namespace

ToolFormat llama3_json_format() {
  return {"llama3_json",
          {"<|python_tag|>", "{\"name\": function name, \"parameters\":", "<|start_header_id|>"},
          [] { return std::unique_ptr<ToolParser>(new Llama3Parser); }};
}

}  // namespace ttpu::server
