#include "ttpu/text/tokenizer.h"

#include <random>
#include <thread>

#include <gtest/gtest.h>

#include "ttpu/base/file.h"
#include "ttpu/base/json.h"
#include "ttpu/text/detokenizer.h"

namespace ttpu::text {
namespace {

const std::filesystem::path kFolder =
    std::filesystem::path(TTPU_SOURCE_DIR) / "tests/fixtures/tokenizers";

class TokenizerFixture : public testing::TestWithParam<std::string> {
 protected:
  Tokenizer tokenizer_ = Tokenizer::from_file(kFolder / (GetParam() + ".tokenizer.json"));
  Json cases_ = read_json(kFolder / (GetParam() + ".cases.json"));
};

std::string stream(Detokenizer& detokenizer, const std::vector<int32_t>& ids) {
  std::string text;
  for (const int32_t id : ids) {
    const std::string piece = detokenizer.push(id);
    // nlohmann's dump refuses broken UTF-8.
    EXPECT_NO_THROW(static_cast<void>(Json(piece).dump()));
    text += piece;
  }
  return text + detokenizer.flush();
}

TEST_P(TokenizerFixture, encodes_and_decodes_as_the_reference_does) {
  EXPECT_EQ(tokenizer_.vocab_size(), cases_["vocab_size"].get<int64_t>());
  for (const Json& one : cases_["cases"]) {
    const std::string text = one["text"];
    const std::vector<int32_t> ids = one["ids"];
    EXPECT_EQ(tokenizer_.encode(text), ids) << text;
    EXPECT_EQ(tokenizer_.encode(text, false), one["plain"].get<std::vector<int32_t>>()) << text;
    EXPECT_EQ(tokenizer_.decode(ids, false), one["decoded"].get<std::string>());
    EXPECT_EQ(tokenizer_.decode(ids, true), one["skipped"].get<std::string>());
  }
  for (const Json& one : cases_["random"]) {
    EXPECT_EQ(tokenizer_.decode(one["ids"].get<std::vector<int32_t>>(), false),
              one["decoded"].get<std::string>());
  }
}

TEST_P(TokenizerFixture, the_stream_of_pieces_is_the_text_of_all_ids) {
  std::mt19937 random(11);
  for (const bool skip : {true, false}) {
    Detokenizer detokenizer(tokenizer_, skip);
    for (const Json& one : cases_["cases"]) {
      const std::vector<int32_t> ids = one["ids"];
      EXPECT_EQ(stream(detokenizer, ids), tokenizer_.decode(ids, skip)) << one["text"];
    }
    for (int round = 0; round < 300; ++round) {
      // A few ids beyond the vocabulary are among them.
      std::vector<int32_t> ids(random() % 40);
      for (int32_t& id : ids) {
        id = static_cast<int32_t>(random() % static_cast<uint64_t>(tokenizer_.vocab_size() + 3));
      }
      EXPECT_EQ(stream(detokenizer, ids), tokenizer_.decode(ids, skip));
    }
  }
}

TEST_P(TokenizerFixture, tokens_and_ids_lead_to_each_other) {
  for (int32_t id = 0; id < tokenizer_.vocab_size(); ++id) {
    const std::optional<std::string> token = tokenizer_.id_to_token(id);
    ASSERT_TRUE(token.has_value()) << id;
    EXPECT_EQ(tokenizer_.token_to_id(*token), id) << *token;
  }
  EXPECT_FALSE(tokenizer_.id_to_token(-1).has_value());
  EXPECT_FALSE(tokenizer_.id_to_token(1'000'000).has_value());
  EXPECT_FALSE(tokenizer_.token_to_id("no such token anywhere").has_value());
  EXPECT_TRUE(tokenizer_.is_special(tokenizer_.token_to_id("<|special|>").value()));
  EXPECT_FALSE(tokenizer_.is_special(static_cast<int32_t>(tokenizer_.vocab_size()) - 1));
}

TEST_P(TokenizerFixture, a_damaged_file_is_refused_and_never_crashes) {
  const std::string json = read_file(kFolder / (GetParam() + ".tokenizer.json"));
  std::mt19937 random(3);
  for (int round = 0; round < 20; ++round) {
    const size_t size = random() % (json.size() - 2);
    EXPECT_THROW(Tokenizer::from_json(json.substr(0, size)), Error) << size;
    std::string changed = json;
    changed[size] = static_cast<char>(' ' + random() % 90);
    try {
      const Tokenizer tokenizer = Tokenizer::from_json(changed);
      static_cast<void>(tokenizer.decode(tokenizer.encode("any text 123")));
    } catch (const Error&) {
      // Refused: as good as accepted.
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, TokenizerFixture,
                         testing::Values("byte_level_gpt2", "byte_level_llama3", "byte_level_qwen2",
                                         "byte_level_o200k", "byte_level_deepseek",
                                         "byte_level_digits", "byte_fallback_strip",
                                         "byte_fallback", "word_piece", "unigram", "word_suffix",
                                         "word_level"),
                         [](const auto& test) { return test.param; });

Tokenizer sample() { return Tokenizer::from_file(kFolder / "byte_level_gpt2.tokenizer.json"); }

TEST(Tokenizer, invalid_utf8_is_an_error_that_names_the_byte) {
  const Tokenizer tokenizer = sample();
  const std::pair<std::string, int> texts[] = {{"abc\xff", 3},           {"\xc3", 0},
                                               {"ok \xed\xa0\x80", 3},   {"\xc0\xaf", 0},
                                               {"é\xf4\x90\x80\x80", 2}, {"日\xe6\x97", 3}};
  for (const auto& [text, offset] : texts) {
    try {
      tokenizer.encode(text);
      ADD_FAILURE() << "accepted " << offset;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kInvalidArgument);
      EXPECT_NE(std::string(error.what()).find(fmt::format("offset {}", offset)), std::string::npos)
          << error.what();
    }
  }
}

TEST(Tokenizer, a_file_that_is_no_tokenizer_is_refused) {
  for (
      const char* json :
      {"", "{", "null", "[]", "{}", "{\"model\": 3}", "\xff",
       R"({"version":"1.0","model":{"type":"BPE","vocab":{},"merges":[]}})",
       R"({"version":"1.0","model":{"type":"Nothing","vocab":{}}})",
       R"({"version":"1.0","model":{"type":"BPE","vocab":{"a":0},"merges":["a b"]}})",
       R"({"version":"1.0","pre_tokenizer":{"type":"Split","pattern":{"Regex":"("},)"
       R"("behavior":"Isolated","invert":false},"model":{"type":"BPE","vocab":{"a":0},"merges":[]}})"}) {
    EXPECT_THROW(Tokenizer::from_json(json), Error) << json;
  }
  EXPECT_THROW(Tokenizer::from_file("/nonexistent/tokenizer.json"), Error);
}

// tools/make_template_fixtures.py --smollm2 FOLDER writes what this needs; it is too large to
// commit.
TEST(Tokenizer, the_tokenizer_of_smollm2_agrees_with_the_reference) {
  const std::filesystem::path folder = env_or("TTPU_SMOLLM2_TOKENIZER");
  if (folder.empty()) GTEST_SKIP() << "TTPU_SMOLLM2_TOKENIZER names no folder";
  const Tokenizer tokenizer = Tokenizer::from_file(folder / "tokenizer.json");
  EXPECT_EQ(tokenizer.vocab_size(), 49152);
  EXPECT_EQ(tokenizer.encode("The capital of France is"),
            (std::vector<int32_t>{504, 3575, 282, 4649, 314}));
  for (const Json& one : read_json(folder / "cases.json")) {
    const std::vector<int32_t> ids = one["ids"];
    EXPECT_EQ(tokenizer.encode(one["text"].get<std::string>()), ids) << one["text"];
    Detokenizer detokenizer(tokenizer, false);
    EXPECT_EQ(stream(detokenizer, ids), tokenizer.decode(ids, false));
  }
  std::mt19937 random(5);
  Detokenizer detokenizer(tokenizer);
  std::vector<int32_t> ids(20'000);
  for (int32_t& id : ids) id = static_cast<int32_t>(random() % 49152);
  EXPECT_EQ(stream(detokenizer, ids), tokenizer.decode(ids));
}

TEST(Tokenizer, negative_ids_are_refused) {
  const Tokenizer tokenizer = sample();
  EXPECT_THROW(tokenizer.decode(std::vector<int32_t>{1, -1}), Error);
  EXPECT_THROW(Detokenizer(tokenizer).push(-5), Error);
}

TEST(Tokenizer, encodes_on_several_threads_at_once) {
  const Tokenizer tokenizer = sample();
  const std::vector<int32_t> expected = tokenizer.encode("The quick brown fox 🤖 123");
  std::vector<std::thread> threads;
  std::vector<int> wrong(4, 0);
  for (int& count : wrong) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) {
        count += tokenizer.encode("The quick brown fox 🤖 123") == expected ? 0 : 1;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4, 0));
}

TEST(Detokenizer, an_emoji_comes_whole_with_its_last_token) {
  const Tokenizer tokenizer = sample();
  Detokenizer detokenizer(tokenizer);
  const std::vector<int32_t> ids = tokenizer.encode("x🦀y", false);
  ASSERT_GT(ids.size(), 3u);
  std::vector<std::string> pieces;
  for (const int32_t id : ids) {
    if (std::string piece = detokenizer.push(id); !piece.empty()) pieces.push_back(piece);
  }
  EXPECT_EQ(pieces, (std::vector<std::string>{"x", "🦀", "y"}));
}

TEST(Detokenizer, flush_shows_an_unfinished_character_and_starts_afresh) {
  const Tokenizer tokenizer = sample();
  Detokenizer detokenizer(tokenizer);
  const std::vector<int32_t> ids = tokenizer.encode("🦀", false);
  EXPECT_EQ(detokenizer.push(ids[0]), "");
  EXPECT_EQ(detokenizer.flush(), "\uFFFD");
  EXPECT_EQ(detokenizer.flush(), "");
}

TEST(Detokenizer, only_the_first_space_of_a_sentencepiece_text_goes) {
  const Tokenizer tokenizer = Tokenizer::from_file(kFolder / "byte_fallback_strip.tokenizer.json");
  Detokenizer detokenizer(tokenizer);
  std::string text;
  for (const int32_t id : tokenizer.encode("The quick fox")) text += detokenizer.push(id);
  EXPECT_EQ(text, "The quick fox");
}

}  // namespace
}  // namespace ttpu::text
