// The formats of calls, one function a file.
#pragma once

#include "ttpu/server/parsers/parser.h"

namespace ttpu::server {

ToolFormat hermes_format();
ToolFormat llama3_json_format();
ToolFormat mistral_format();
ToolFormat pythonic_format();

// What all formats share whose calls are all of the answer from some mark on: text before it is
// content; the rest is kept to the end, and read as a whole.
class WholeParser : public ToolParser {
 public:
  explicit WholeParser(std::string mark) : finder_(std::move(mark)) {}
  Parsed push(std::string_view text) override {
    Parsed out;
    if (found_) {
      calls_ += text;
    } else if (finder_.push(text, out.content)) {
      found_ = true;
      calls_ = finder_.rest();
    }
    return out;
  }
  Parsed finish() override {
    Parsed out;
    if (!found_) {
      out.content = finder_.rest();
    } else if (auto calls = read(calls_)) {
      out.calls = std::move(*calls);
    } else {
      out.content = calls_;
    }
    return out;
  }

 protected:
  // None: it is no call.
  virtual std::optional<std::vector<ToolCall>> read(const std::string& text) const = 0;

 private:
  MarkFinder finder_;
  bool found_ = false;
  std::string calls_;
};

// The same for answers that are calls from their first character on, or not at all.
class LeadingParser : public ToolParser {
 public:
  Parsed push(std::string_view text) override;
  Parsed finish() override;

 protected:
  // Whether an answer that begins so may be a call; none: more of it is needed.
  virtual std::optional<bool> begins(std::string_view text) const = 0;
  virtual std::optional<std::vector<ToolCall>> read(const std::string& text) const = 0;

 private:
  std::string held_;
  bool content_ = false;
};

}  // namespace ttpu::server
