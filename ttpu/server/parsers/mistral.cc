// Mistral: [TOOL_CALLS] and a JSON list of {"name", "arguments"}; newer models write the name and
// then the object of arguments, for each call.
#include "ttpu/server/parsers/formats.h"

namespace ttpu::server {
namespace {

constexpr std::string_view kMark = "[TOOL_CALLS]";
constexpr std::string_view kArguments = "[ARGS]";

std::optional<ToolCall> read_named(std::string_view text) {
  const size_t brace = text.find('{');
  if (brace == std::string_view::npos) return std::nullopt;
  std::string_view name = text.substr(0, brace);
  if (name.ends_with(kArguments)) name.remove_suffix(kArguments.size());
  while (!name.empty() && std::isspace(static_cast<unsigned char>(name.front()))) {
    name.remove_prefix(1);
  }
  while (!name.empty() && std::isspace(static_cast<unsigned char>(name.back()))) {
    name.remove_suffix(1);
  }
  Json arguments = Json::parse(text.substr(brace), nullptr, false);
  if (name.empty() || !arguments.is_object()) return std::nullopt;
  return ToolCall{std::string(name), std::move(arguments)};
}

class MistralParser final : public WholeParser {
 public:
  MistralParser() : WholeParser(std::string(kMark)) {}

 private:
  std::optional<std::vector<ToolCall>> read(const std::string& text) const override {
    if (auto calls = calls_from_list(text)) return calls;
    std::vector<ToolCall> calls;
    for (size_t begin = 0; begin <= text.size();) {
      const size_t end = std::min(text.find(kMark, begin), text.size());
      auto call = read_named(std::string_view(text).substr(begin, end - begin));
      if (!call) return std::nullopt;
      calls.push_back(std::move(*call));
      if (end == text.size()) break;
      begin = end + kMark.size();
    }
    return calls;
  }
};

}  // namespace

ToolFormat mistral_format() {
  return {"mistral",
          {"[TOOL_CALLS]"},
          [] { return std::unique_ptr<ToolParser>(new MistralParser); },
          true};
}

}  // namespace ttpu::server
