// Calls and thoughts in texts, cut at every place.
#include <gtest/gtest.h>

#include "ttpu/server/parsers/parser.h"

namespace ttpu::server {
namespace {

// content|name{arguments}|...
std::string said(const Parsed& parsed) {
  std::string out = parsed.content;
  for (const ToolCall& call : parsed.calls) out += "|" + call.name + call.arguments.dump();
  return out;
}

std::string parse(ToolParser& parser, const std::vector<std::string_view>& pieces) {
  Parsed all;
  const auto add = [&](Parsed part) {
    all.content += part.content;
    for (ToolCall& call : part.calls) all.calls.push_back(std::move(call));
  };
  for (const std::string_view piece : pieces) add(parser.push(piece));
  add(parser.finish());
  return said(all);
}

struct Case {
  const char* format;
  const char* text;
  const char* expected;
};

const Case kCases[] = {
    {"hermes", "Just text < and <tool", "Just text < and <tool"},
    {"hermes",
     "Let me see.<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"<x>\"}}\n</tool_call>",
     "Let me see.|f{\"a\":\"<x>\"}"},
    {"hermes",
     "<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>\n<tool_call>{\"name\":\"g\","
     "\"arguments\":\"{\\\"b\\\":1}\"}</tool_call>",
     "\n|f{}|g{\"b\":1}"},
    {"hermes", "<tool_call>{\"name\": \"f\", \"arguments\": {}}", "|f{}"},
    {"hermes", "a<tool_call>broken</tool_call>b", "a<tool_call>broken</tool_call>b"},
    {"llama3_json", "{\"name\": \"f\", \"parameters\": {\"q\": \"a}\\\"{\"}}",
     "|f{\"q\":\"a}\\\"{\"}"},
    {"llama3_json",
     "<|python_tag|>{\"name\": \"f\", \"parameters\": {}}; {\"name\": \"g\", \"arguments\": {}}",
     "|f{}|g{}"},
    {"llama3_json", "The answer is {\"name\": \"f\"}", "The answer is {\"name\": \"f\"}"},
    {"llama3_json", "{\"no\": \"call\"}", "{\"no\": \"call\"}"},
    {"llama3_json", "  {\"name\": \"f\"", "  {\"name\": \"f\""},
    {"mistral",
     "Well[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"a\": [1]}}, {\"name\": \"g\"}]",
     "Well|f{\"a\":[1]}|g{}"},
    {"mistral", "[TOOL_CALLS]f{\"a\": 1}[TOOL_CALLS]g[ARGS]{}", "|f{\"a\":1}|g{}"},
    {"mistral", "[TOOL", "[TOOL"},
    {"pythonic", "[f(a=\"x\\n'\", b=-1.5, c=[True, None], d={'k': 'v'}), g.h()]",
     "|f{\"a\":\"x\\n'\",\"b\":-1.5,\"c\":[true,null],\"d\":{\"k\":\"v\"}}|g.h{}"},
    {"pythonic", "```tool_code\nf(city='Z\\u00fcrich')\n```", "|f{\"city\":\"Zürich\"}"},
    {"pythonic", "[1, 2] is a list", "[1, 2] is a list"},
    {"pythonic", "```c\nint x;\n```", "```c\nint x;\n```"},
    {"pythonic", "Hello (you)", "Hello (you)"},
    {"pythonic", "[f(a=", "[f(a="},
};

TEST(ToolParsers, CallsAreFoundWhereverTheTextIsCut) {
  for (const Case& one : kCases) {
    const ToolFormat* format = find_tool_format(one.format);
    ASSERT_NE(format, nullptr);
    const std::string_view text = one.text;
    EXPECT_EQ(parse(*format->make(), {text}), one.expected) << one.format;
    for (size_t cut = 0; cut <= text.size(); ++cut) {
      EXPECT_EQ(parse(*format->make(), {text.substr(0, cut), text.substr(cut)}), one.expected)
          << text.substr(0, cut) << " then the rest";
    }
    std::vector<std::string_view> letters;
    for (size_t i = 0; i < text.size(); ++i) letters.push_back(text.substr(i, 1));
    EXPECT_EQ(parse(*format->make(), letters), one.expected) << text;
  }
}

TEST(ToolParsers, TextComesAsSoonAsItCannotBeACall) {
  for (const ToolFormat& format : tool_formats()) {
    EXPECT_EQ(format.make()->push("Hello").content, "Hello") << format.name;
  }
}

TEST(ToolParsers, TemplatesTellTheFormat) {
  const auto name = [](const char* text) -> std::string_view {
    const ToolFormat* format = detect_tool_format(text);
    return format == nullptr ? "none" : format->name;
  };
  EXPECT_EQ(name("<|im_start|>... <tool_call>{{ x }}"), "hermes");
  EXPECT_EQ(name("[AVAILABLE_TOOLS] [TOOL_CALLS]"), "mistral");
  EXPECT_EQ(name("<|start_header_id|>system"), "llama3_json");
  EXPECT_EQ(name("<start_of_turn>user"), "pythonic");
  EXPECT_EQ(name("<|im_start|>user"), "none");
  EXPECT_EQ(find_tool_format("gemma")->name, "pythonic");
  EXPECT_EQ(find_tool_format("other"), nullptr);
}

std::string reasoned(bool open, const std::vector<std::string_view>& pieces) {
  ReasoningParser parser(open);
  Reasoned all;
  const auto add = [&](const Reasoned& part) {
    all.reasoning += part.reasoning;
    all.content += part.content;
  };
  for (const std::string_view piece : pieces) add(parser.push(piece));
  add(parser.finish());
  return all.reasoning + "|" + all.content;
}

TEST(ReasoningParsers, ThoughtsAreFoundWhereverTheTextIsCut) {
  struct Thought {
    bool open;
    const char* text;
    const char* expected;
  };
  for (const Thought& one :
       std::vector<Thought>{{false, "<think>hm < </thin</think>\n\nSo.\n", "hm < </thin|So.\n"},
                            {false, "\n<think>never ends", "never ends|"},
                            {false, "No thoughts </think>", "|No thoughts </think>"},
                            {false, "<thin", "|<thin"},
                            {true, "hm</think>So.", "hm|So."},
                            {true, "hm", "hm|"}}) {
    const std::string_view text = one.text;
    for (size_t cut = 0; cut <= text.size(); ++cut) {
      EXPECT_EQ(reasoned(one.open, {text.substr(0, cut), text.substr(cut)}), one.expected);
    }
  }
}

}  // namespace
}  // namespace ttpu::server
