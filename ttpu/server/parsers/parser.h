// Calls of tools, and thoughts, in the text of an answer, as it comes.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ttpu/base/json.h"

namespace ttpu::server {

struct ToolCall {
  std::string name;
  Json arguments;  // an object
};

// What is new of an answer. Calls come whole.
struct Parsed {
  std::string content;
  std::vector<ToolCall> calls;
};

// One answer. Pieces may be cut anywhere, and their results joined do not depend on where. What
// looks like a call and turns out to be none is content: no text is lost.
class ToolParser {
 public:
  virtual ~ToolParser() = default;
  virtual Parsed push(std::string_view text) = 0;
  virtual Parsed finish() = 0;
};

// One format; each stands in a file of its own.
struct ToolFormat {
  std::string_view name;                            // vLLM's
  std::vector<std::string_view> marks;              // in a chat template that speaks it
  std::unique_ptr<ToolParser> (*make)() = nullptr;  // for one answer
  bool special_tokens = false;                      // marks of the text are special tokens
};

const std::vector<ToolFormat>& tool_formats();
// Null when there is none of that name.
const ToolFormat* find_tool_format(std::string_view name);
// By what its chat template says; null when it says nothing of tools that is known.
const ToolFormat* detect_tool_format(std::string_view chat_template);
// A JSON list of {"name", "parameters"}: what grammars that force a call lead to.
std::unique_ptr<ToolParser> make_forced_parser();

// Of a parser's JSON: a call, if it is one. `arguments` or `parameters`, an object or its text.
std::optional<ToolCall> call_from_json(const Json& value);
// Of the text of a JSON list of such calls; nothing when one is none.
std::optional<std::vector<ToolCall>> calls_from_list(const std::string& text);

// Text up to a mark, as it comes: what may still become the mark is held back.
class MarkFinder {
 public:
  explicit MarkFinder(std::string mark) : mark_(std::move(mark)) {}
  // Appends the text before the mark to `before`; true once the mark has come, and then rest() is
  // what came after it.
  bool push(std::string_view text, std::string& before);
  // What is held back or came after the mark; the next push starts anew.
  std::string rest();

 private:
  std::string mark_;
  std::string held_;
};

// Thoughts between <think> and </think>.
struct Reasoned {
  std::string reasoning;
  std::string content;
};
class ReasoningParser {
 public:
  // `open`: the prompt has ended inside a thought.
  explicit ReasoningParser(bool open);
  Reasoned push(std::string_view text);
  Reasoned finish();

 private:
  enum class State { kStart, kThinking, kSaid };
  void add_content(std::string_view text, Reasoned& out);
  State state_;
  std::string held_;  // at the start: what may become <think>
  MarkFinder end_{"</think>"};
  bool trim_ = false;  // the blank lines between thought and answer belong to neither
};
// vLLM's names of parsers that know these marks.
bool is_reasoning_parser(std::string_view name);

}  // namespace ttpu::server
