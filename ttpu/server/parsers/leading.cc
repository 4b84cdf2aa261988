#include "ttpu/server/parsers/formats.h"

namespace ttpu::server {
namespace {

class ForcedParser final : public LeadingParser {
  std::optional<bool> begins(std::string_view text) const override {
    if (text.empty()) return std::nullopt;
    return text[0] == '[';
  }
  std::optional<std::vector<ToolCall>> read(const std::string& text) const override {
    return calls_from_list(text);
  }
};

}  // namespace

Parsed LeadingParser::push(std::string_view text) {
  Parsed out;
  if (content_) {
    out.content = text;
    return out;
  }
  held_ += text;
  const size_t begin = std::min(held_.find_first_not_of(" \t\r\n"), held_.size());
  const auto call = begins(std::string_view(held_).substr(begin));
  if (call.value_or(true)) return out;
  content_ = true;
  out.content = std::exchange(held_, std::string());
  return out;
}

Parsed LeadingParser::finish() {
  Parsed out;
  if (auto calls = read(held_); calls && !calls->empty()) {
    out.calls = std::move(*calls);
  } else {
    out.content = held_;
  }
  held_.clear();
  return out;
}

std::unique_ptr<ToolParser> make_forced_parser() { return std::make_unique<ForcedParser>(); }

}  // namespace ttpu::server
