// Items of /v1/responses, from what conversations and answers are made of.
#include "ttpu/server/response_items.h"

#include <gtest/gtest.h>

namespace ttpu::server {
namespace {

struct Said {
  std::vector<std::string> types;
  std::vector<Json> events;
  ResponseItems items{[this](const char* type, Json rest) {
    types.emplace_back(type);
    events.push_back(std::move(rest));
  }};
};

TEST(ResponseItems, ThoughtsTextsAndCallsComeInTheirOrder) {
  Said said;
  said.items.add({"Hm", "", {}});
  said.items.add({".", "", {}});
  said.items.add({"", "Let me", {}});
  said.items.add({"", " see.", {{"f", {{"a", 1}}}}});
  said.items.add({"", "\n", {{"g", Json::object()}}});
  said.items.add({"", "Done.", {}});
  said.items.finish(true);
  const Json& items = said.items.items();
  ASSERT_EQ(items.size(), 5U);
  EXPECT_EQ(items[0]["type"], "reasoning");
  EXPECT_EQ(items[0]["content"][0]["text"], "Hm.");
  EXPECT_EQ(items[1]["content"][0]["text"], "Let me see.");
  EXPECT_EQ(items[2]["name"], "f");
  EXPECT_EQ(items[2]["arguments"], R"({"a":1})");
  EXPECT_EQ(items[3]["name"], "g");
  EXPECT_EQ(items[4]["content"][0]["text"], "Done.");
  EXPECT_EQ(items[4]["status"], "incomplete");
  EXPECT_EQ(items[3]["status"], "completed");
  EXPECT_EQ(said.items.reasoning(), "Hm.");
  // What the events of each item say is what it has become.
  std::vector<std::string> deltas(items.size());
  for (size_t i = 0; i < said.events.size(); ++i) {
    const Json& event = said.events[i];
    const size_t index = event["output_index"];
    if (event.contains("delta")) deltas[index] += event["delta"].get<std::string>();
    if (said.types[i] == "response.output_item.done") {
      EXPECT_EQ(event["item"], items[index]);
    } else if (said.types[i] == "response.output_item.added") {
      EXPECT_EQ(event["item"]["status"], "in_progress");
    }
  }
  EXPECT_EQ(deltas, (std::vector<std::string>{"Hm.", "Let me see.", R"({"a":1})", "{}", "Done."}));
}

TEST(ResponseItems, NothingIsAnEmptyText) {
  Said said;
  said.items.add({"", "", {}});
  said.items.finish(false);
  ASSERT_EQ(said.items.items().size(), 1U);
  EXPECT_EQ(said.items.items()[0]["content"][0]["text"], "");
  EXPECT_EQ(said.items.items()[0]["status"], "completed");
}

TEST(InputItems, CallsJoinTheMessageOfTheAssistant) {
  Json messages = Json::array();
  const char* items[] = {
      R"({"role": "user", "content": [{"type": "input_text", "text": "Hi"}]})",
      R"({"type": "reasoning", "id": "rs_1", "summary": []})",
      R"({"type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
          "content": [{"type": "output_text", "text": "See:", "annotations": []}]})",
      R"({"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"})",
      R"({"type": "function_call", "call_id": "b", "name": "g", "arguments": "{}"})",
      R"({"type": "function_call_output", "call_id": "a", "output": [{"type": "input_text", "text": "1"}]})",
      R"({"type": "function_call_output", "call_id": "b", "output": "2"})",
      R"({"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"})"};
  for (const char* item : items) {
    EXPECT_EQ(add_input_item(Json::parse(item), messages), std::nullopt) << item;
  }
  ASSERT_EQ(messages.size(), 5U) << messages.dump(1);
  EXPECT_EQ(messages[1]["content"][0]["text"], "See:");
  EXPECT_EQ(messages[1]["tool_calls"].size(), 2U);
  EXPECT_FALSE(messages[1].contains("id"));
  EXPECT_EQ(messages[2]["tool_call_id"], "a");
  EXPECT_EQ(messages[3]["content"], "2");
  EXPECT_EQ(messages[4]["tool_calls"][0]["id"], "c");
}

}  // namespace
}  // namespace ttpu::server
