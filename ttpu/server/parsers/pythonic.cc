// Gemma and Llama 4: Python's notation, [get(city="Paris", days=2), stop()], the whole answer;
// Gemma puts it into a fence of ```tool_code.
#include <charconv>

#include "ttpu/server/parsers/formats.h"

namespace ttpu::server {
namespace {

constexpr std::string_view kFences[] = {"```tool_code", "```python", "```"};

// Literals and calls with named arguments. Reads none of it when some of it is something else.
class Python {
 public:
  explicit Python(std::string_view text) : text_(text) {}

  std::optional<std::vector<ToolCall>> calls() {
    std::vector<ToolCall> out;
    const bool list = take('[');
    do {
      ToolCall call{name(), Json::object()};
      if (call.name.empty() || !take('(')) return std::nullopt;
      while (!take(')')) {
        const std::string key = name();
        if (key.empty() || !take('=')) return std::nullopt;
        call.arguments[key] = value(0);
        if (bad_ || (!take(',') && peek() != ')')) return std::nullopt;
      }
      out.push_back(std::move(call));
    } while (list ? take(',') && peek() != ']' : (take(';') || true) && peek() != '\0');
    if (list && !take(']')) return std::nullopt;
    return peek() == '\0' ? std::optional(std::move(out)) : std::nullopt;
  }

 private:
  char peek() {
    while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_]))) ++at_;
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  bool take(char c) {
    if (peek() != c) return false;
    ++at_;
    return true;
  }
  std::string name() {
    peek();
    const size_t begin = at_;
    while (at_ < text_.size() && (std::isalnum(static_cast<unsigned char>(text_[at_])) ||
                                  text_[at_] == '_' || text_[at_] == '.')) {
      ++at_;
    }
    return std::string(text_.substr(begin, at_ - begin));
  }
  Json wrong() {
    bad_ = true;
    return nullptr;
  }

  Json value(int depth) {
    const char c = peek();
    if (depth > 64) return wrong();
    if (c == '"' || c == '\'') return string();
    if (c == '[' || c == '(') return list(c == '[' ? ']' : ')', depth);
    if (c == '{') return dictionary(depth);
    if (c == '-' || c == '.' || std::isdigit(static_cast<unsigned char>(c))) return number();
    const std::string word = name();
    if (word == "True" || word == "true") return true;
    if (word == "False" || word == "false") return false;
    if (word == "None" || word == "null") return nullptr;
    return wrong();
  }

  Json list(char end, int depth) {
    Json out = Json::array();
    ++at_;
    while (!bad_ && !take(end)) {
      out.push_back(value(depth + 1));
      if (!take(',') && peek() != end) return wrong();
    }
    return out;
  }

  Json dictionary(int depth) {
    Json out = Json::object();
    ++at_;
    while (!bad_ && !take('}')) {
      const Json key = value(depth + 1);
      if (!key.is_string() || !take(':')) return wrong();
      out[key.get<std::string>()] = value(depth + 1);
      if (!take(',') && peek() != '}') return wrong();
    }
    return out;
  }

  Json number() {
    const size_t begin = at_;
    while (at_ < text_.size() &&
           std::string_view("+-.eE0123456789").find(text_[at_]) != std::string_view::npos) {
      ++at_;
    }
    Json out = Json::parse(text_.substr(begin, at_ - begin), nullptr, false);
    return out.is_number() ? out : wrong();
  }

  Json string() {
    const char quote = text_[at_++];
    std::string out;
    while (at_ < text_.size() && text_[at_] != quote) {
      char c = text_[at_++];
      if (c == '\\' && at_ < text_.size()) {
        c = text_[at_++];
        if (c == 'u') {
          unsigned code = 0;
          const char* end = text_.data() + std::min(at_ + 4, text_.size());
          const auto [stop, error] = std::from_chars(text_.data() + at_, end, code, 16);
          if (error != std::errc() || stop != text_.data() + at_ + 4) return wrong();
          // JSON's reader knows how to write it; surrogates alone are no characters.
          const Json letter = Json::parse(fmt::format("\"\\u{:04x}\"", code), nullptr, false);
          if (!letter.is_string()) return wrong();
          out += letter.get<std::string>();
          at_ += 4;
          continue;
        }
        c = c == 'n' ? '\n' : c == 't' ? '\t' : c == 'r' ? '\r' : c;
      }
      out += c;
    }
    if (at_ >= text_.size()) return wrong();
    ++at_;
    return out;
  }

  std::string_view text_;
  size_t at_ = 0;
  bool bad_ = false;
};

class PythonicParser final : public LeadingParser {
  std::optional<bool> begins(std::string_view text) const override {
    if (text.empty() || text[0] == '[') return text.empty() ? std::nullopt : std::optional(true);
    if (text.starts_with("```tool_code") || text.starts_with("```python")) return true;
    for (const std::string_view fence : kFences) {
      if (text.size() < fence.size() && fence.starts_with(text)) return std::nullopt;
    }
    return false;
  }
  std::optional<std::vector<ToolCall>> read(const std::string& text) const override {
    std::string_view rest = text;
    const auto trim = [&] {
      while (!rest.empty() && std::isspace(static_cast<unsigned char>(rest.back()))) {
        rest.remove_suffix(1);
      }
      rest.remove_prefix(std::min(rest.find_first_not_of(" \t\r\n"), rest.size()));
    };
    trim();
    for (const std::string_view fence : kFences) {
      if (!rest.starts_with(fence)) continue;
      rest.remove_prefix(fence.size());
      break;
    }
    if (rest.ends_with("```")) rest.remove_suffix(3);
    trim();
    return Python(rest).calls();
  }
};

}  // namespace

ToolFormat pythonic_format() {
  return {"pythonic", {"tool_code", "<start_of_turn>"}, [] {
            return std::unique_ptr<ToolParser>(new PythonicParser);
          }};
}

}  // namespace ttpu::server
