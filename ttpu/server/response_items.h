// The items of /v1/responses: what a conversation is made of, and what an answer comes to.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "ttpu/server/tools.h"

namespace ttpu::server {

// Appends to the messages of a chat what an item of `input` says: a message, a call (of the
// assistant's message before it, where there is one) or what the tool gave. Thoughts are left out,
// since chat templates do so. Gives what is wrong with it, if anything.
std::optional<std::string> add_input_item(const Json& item, Json& messages);

// The output of one answer as it grows: a thought, texts and calls, in the order in which they
// come. Blank text beside calls is left out.
class ResponseItems {
 public:
  // Told the type and the fields of each event.
  using Emit = std::function<void(const char* type, Json rest)>;
  explicit ResponseItems(Emit emit) : emit_(std::move(emit)) {}

  void add(const AnswerReading::Piece& piece);
  // `cut`: the answer has ended before its end. An answer of nothing is an empty text.
  void finish(bool cut);
  const Json& items() const { return items_; }
  const std::string& reasoning() const { return reasoning_; }

 private:
  enum class Open { kNone, kReasoning, kMessage };
  void say(Open kind, const std::string& text);
  void open(Open kind);
  void close(bool cut = false);
  void call(const ToolCall& call);
  Json place() const;
  Json part() const;

  Emit emit_;
  Json items_ = Json::array();  // the last one is open unless open_ is kNone
  Open open_ = Open::kNone;
  std::string text_;   // of the open one
  std::string blank_;  // that may stand before a text
  std::string reasoning_;
};

}  // namespace ttpu::server
