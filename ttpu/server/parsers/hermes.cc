// Hermes and Qwen: <tool_call>{"name": ..., "arguments": {...}}</tool_call>, among text.
#include "ttpu/server/parsers/formats.h"

namespace ttpu::server {
namespace {

class HermesParser final : public ToolParser {
 public:
  Parsed push(std::string_view text) override {
    Parsed out;
    std::string piece(text);
    while (true) {
      if (!inside_) {
        if (!begin_.push(piece, out.content)) return out;
        inside_ = true;
        piece = begin_.rest();
      }
      if (!end_.push(piece, call_)) return out;
      inside_ = false;
      piece = end_.rest();
      close(out);
    }
  }

  Parsed finish() override {
    Parsed out;
    if (!inside_) {
      out.content = begin_.rest();
      return out;
    }
    // Models forget to close the last one.
    call_ += end_.rest();
    close(out, "");
    return out;
  }

 private:
  void close(Parsed& out, std::string_view end = "</tool_call>") {
    if (auto call = call_from_json(Json::parse(call_, nullptr, false))) {
      out.calls.push_back(std::move(*call));
    } else {
      out.content += fmt::format("<tool_call>{}{}", call_, end);
    }
    call_.clear();
  }

  MarkFinder begin_{"<tool_call>"}, end_{"</tool_call>"};
  bool inside_ = false;
  std::string call_;
};

}  // namespace

ToolFormat hermes_format() {
  return {"hermes", {"<tool_call>"}, [] { return std::unique_ptr<ToolParser>(new HermesParser); }};
}

}  // namespace ttpu::server
