// What requests are read as; how answers are said is held against OpenAI's client in Python.
#include <gtest/gtest.h>

#include "tests/server/testing.h"
#include "ttpu/server/chat.h"
#include "ttpu/server/completions.h"
#include "ttpu/server/responses.h"

namespace ttpu::server {
namespace {

using Tokens = std::vector<int32_t>;

class Requests : public testing::Test {
 protected:
  GenerationRequest chat(const char* body) {
    return read_chat(parse_json(body, "test"), facts_)->request;
  }
  GenerationRequest completion(const char* body) {
    return read_completion(parse_json(body, "test"), facts_)->request;
  }
  // "status param code" of the error.
  template <typename Read>
  std::string error(Read read) {
    try {
      read();
    } catch (const ApiError& error) {
      return fmt::format("{} {} {}", error.status(), error.param(), error.code());
    }
    return "none";
  }

  engine::TextProcessor texts_ = word_texts();
  ModelFacts facts_ = word_facts(texts_);
};

TEST_F(Requests, MessagesGoThroughTheTemplate) {
  EXPECT_EQ(chat(R"({"messages": [{"role": "user", "content": "Hi there"}]})").prompts,
            (std::vector<Tokens>{{1, 4, 5, 3}}));
  EXPECT_EQ(chat(R"({"messages": [{"role": "user", "content": "Hi"}],
                     "add_generation_prompt": false})")
                .prompts,
            (std::vector<Tokens>{{1, 4}}));
  EXPECT_EQ(chat(R"({"messages": [{"role": "user", "content": [
                       {"type": "text", "text": "Hi"}, {"type": "text", "text": "there"}]}]})")
                .prompts,
            (std::vector<Tokens>{{1, 4, 5, 3}}));
}

TEST_F(Requests, ToolsAreShownToTheTemplateUnlessNoneMayBeCalled) {
  const char* with =
      R"({"messages": [{"role": "user", "content": "Hi"}], "tools": [{"function": {"name": "f"}}]})";
  EXPECT_EQ(chat(with).prompts[0], (Tokens{1, 4, 5, 3}));
  const char* without =
      R"({"messages": [{"role": "user", "content": "Hi"}], "tools": [{"function": {"name": "f"}}],
                            "tool_choice": "none"})";
  EXPECT_EQ(chat(without).prompts[0], (Tokens{1, 4, 3}));
}

TEST_F(Requests, APromptIsOneOrManyTextsOrTokens) {
  const std::vector<std::pair<const char*, std::vector<Tokens>>> cases = {
      {R"("Hi there")", {{4, 5}}},
      {R"(["Hi", "there"])", {{4}, {5}}},
      {R"([4, 5])", {{4, 5}}},
      {R"([[4], [5, 5]])", {{4}, {5, 5}}},
  };
  for (const auto& [prompt, expected] : cases) {
    const std::string body = fmt::format(R"({{"prompt": {}}})", prompt);
    EXPECT_EQ(completion(body.c_str()).prompts, expected) << body;
  }
}

TEST_F(Requests, WhatIsNotSaidIsTheModelsOwn) {
  facts_.defaults.top_k = 20;
  const GenerationRequest said = completion(R"({"prompt": "Hi", "top_k": 0, "temperature": 0})");
  EXPECT_EQ(said.sampling.top_k, 0);
  EXPECT_EQ(said.sampling.temperature, 0);
  const GenerationRequest silent = completion(R"({"prompt": "Hi", "top_k": null})");
  EXPECT_EQ(silent.sampling.top_k, 20);
  EXPECT_EQ(silent.sampling.temperature, 1);
  EXPECT_EQ(silent.model, "m");
}

TEST_F(Requests, AnAnswerIsAsLongAsTheContextAllows) {
  EXPECT_EQ(chat(R"({"messages": [{"role": "user", "content": "Hi"}]})").sampling.max_tokens, 8);
  EXPECT_EQ(
      completion(R"({"prompt": "Hi", "max_tokens": 9223372036854775807})").sampling.max_tokens, 8);
  EXPECT_EQ(completion(R"({"prompt": "Hi", "max_tokens": 3})").sampling.max_tokens, 3);
  EXPECT_TRUE(completion(R"({"prompt": "Hi", "max_tokens": 0})").no_answer);
}

TEST_F(Requests, APromptThatLeavesNoRoomIsRefused) {
  EXPECT_EQ(error([&] { completion(R"({"prompt": "Hi Hi Hi Hi Hi Hi Hi Hi"})"); }),
            "400 prompt context_length_exceeded");
  EXPECT_EQ(completion(R"({"prompt": "Hi Hi Hi Hi Hi Hi Hi"})").prompts[0].size(), 7U);
  facts_.max_prompt_bytes = 4;
  EXPECT_EQ(error([&] { completion(R"({"prompt": "Hi Hi"})"); }),
            "400 prompt context_length_exceeded");
  EXPECT_EQ(error([&] { chat(R"({"messages": [{"role": "user", "content": "Hi Hi"}]})"); }),
            "400 messages context_length_exceeded");
}

TEST_F(Requests, AnotherModelIsNotFound) {
  EXPECT_EQ(completion(R"({"model": "other", "prompt": "Hi"})").model, "other");
  EXPECT_EQ(error([&] { completion(R"({"model": "none", "prompt": "Hi"})"); }),
            "404 model model_not_found");
}

TEST_F(Requests, BannedWordsAreBannedAtTheStartAndInside) {
  const auto words = completion(R"({"prompt": "Hi", "bad_words": ["there"]})").sampling.bad_words;
  EXPECT_EQ(words, (std::vector<Tokens>{{5}}));  // one, since words are all that this model knows
  EXPECT_EQ(error([&] { completion(R"({"prompt": "Hi", "bad_words": "  "})"); }), "400 bad_words ");
}

TEST_F(Requests, InputOfAResponseIsAConversation) {
  const auto read = [&](const char* body) {
    return read_response(parse_json(body, "test"), facts_)->request;
  };
  EXPECT_EQ(read(R"({"input": "Hi"})").prompts[0], (Tokens{1, 4, 3}));
  EXPECT_EQ(read(R"({"instructions": "there", "input": [
                       {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}]})")
                .prompts[0],
            (Tokens{2, 5, 1, 4, 3}));
  EXPECT_EQ(error([&] { read(R"({"input": [{"type": "reasoning"}]})"); }), "400 input ");
}

}  // namespace
}  // namespace ttpu::server
