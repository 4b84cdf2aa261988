// Tools of a chat: what may be called, and what an answer calls, thinks and says.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ttpu/server/generation_request.h"
#include "ttpu/server/parsers/parser.h"

namespace ttpu::server {

// The tools that the template may show: none where `tool_choice` is "none". Throws ApiError 400 for
// malformed ones, and for a choice that is not among them.
Json read_tools(Fields& fields);

// How the answers of one request are read.
class AnswerReading {
 public:
  // Of `tool_choice`, `parallel_tool_calls` and the prompt, which must be read. A call that is
  // forced becomes a grammar in `request.sampling`; where the model thinks first, grammars begin
  // behind the thought.
  AnswerReading() = default;
  AnswerReading(Fields& fields, const ModelFacts& facts, GenerationRequest& request);

  struct Piece {
    std::string reasoning, content;
    std::vector<ToolCall> calls;
    bool empty() const { return reasoning.empty() && content.empty() && calls.empty(); }
  };
  // One answer.
  class Reader {
   public:
    explicit Reader(const AnswerReading& reading);
    Piece push(std::string_view text, bool finished);
    size_t calls() const { return calls_; }

   private:
    void say(std::string_view content, Piece& piece);
    std::optional<ReasoningParser> reasoning_;
    std::unique_ptr<ToolParser> tools_;
    size_t calls_ = 0;
  };

 private:
  enum class Thinks { kNever, kMay, kBegun };
  void force(Fields& fields, const Json& tools, GenerationRequest& request);
  void think_first(GenerationRequest& request) const;

  std::unique_ptr<ToolParser> (*make_parser_)() = nullptr;
  Thinks thinks_ = Thinks::kNever;
};

// {"id", "type", "function": {"name", "arguments"}}, the arguments as text.
Json tool_call_json(const ToolCall& call);

}  // namespace ttpu::server
