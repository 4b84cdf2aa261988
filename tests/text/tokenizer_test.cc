#include "ttpu/text/tokenizer.h"

#include <algorithm>
#include <map>
#include <optional>
#include <random>
#include <thread>

#include <gtest/gtest.h>

#include "ttpu/base/file.h"
#include "ttpu/base/json.h"
#include "ttpu/io/config.h"
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

// Real vocabularies, from the GGUF files that the set-up fetches.
class RealTokenizer : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const std::filesystem::path file =
        std::filesystem::path(env_or("TTPU_TEST_DATA", (cache_dir() / "models").string())) /
        GetParam();
    ASSERT_TRUE(std::filesystem::exists(file)) << file << " is missing; run tools/setup.sh models";
    tokenizer_ = Tokenizer::from_source(io::load_model_files(file).tokenizer);
  }
  std::optional<Tokenizer> tokenizer_;
};

TEST_P(RealTokenizer, streams_what_it_decodes) {
  std::mt19937 random(5);
  Detokenizer detokenizer(*tokenizer_);
  std::vector<int32_t> ids(20'000);
  for (int32_t& id : ids) {
    id = static_cast<int32_t>(random() % static_cast<uint64_t>(tokenizer_->vocab_size()));
  }
  EXPECT_EQ(stream(detokenizer, ids), tokenizer_->decode(ids));
}

TEST_P(RealTokenizer, decodes_what_it_encoded) {
  for (const char* text :
       {"The capital of France is", "1234567890 and 3.14159", "日本語のテキスト",
        "  two  spaces\n\n\ttab\r\n", "🦀🤖👩‍👩‍👧‍👧 é ﬁ", "\x01\x7f", ""}) {
    EXPECT_EQ(tokenizer_->decode(tokenizer_->encode(text)), text);
  }
}

INSTANTIATE_TEST_SUITE_P(All, RealTokenizer,
                         testing::Values("smollm2-135m-instruct-q4_1.gguf",
                                         "gemma3-270m-q4_k_m.gguf"),
                         [](const auto& test) { return std::string(test.param).substr(0, 6); });

std::string random_text(std::mt19937& random, const std::vector<std::string>& letters) {
  std::string text;
  for (auto left = random() % 30; left > 0; --left) text += letters[random() % letters.size()];
  return text;
}

constexpr const char* kBpeFrame =
    R"({"version":"1.0","added_tokens":[],"normalizer":null,"pre_tokenizer":null,)"
    R"("post_processor":null,"decoder":null,"model":{"type":"BPE","unk_token":"?",)"
    R"("fuse_unk":%s,"byte_fallback":%s,"ignore_merges":%s}})";

// A vocabulary that grew by random merges, and the same as a tokenizer.json.
struct RandomBpe {
  io::TokenizerSource source;
  Json json;
};

RandomBpe random_bpe(std::mt19937& random) {
  RandomBpe bpe;
  const auto flag = [&] { return random() % 2 == 0 ? "true" : "false"; };
  char frame[512];
  std::snprintf(frame, sizeof(frame), kBpeFrame, flag(), flag(), flag());
  bpe.source.json = frame;
  bpe.json = parse_json(frame, "frame");
  std::vector<std::string> tokens = {"?", "a", "b", "é", "▁", "🤖", "<0xE6>", "<0x97>", "<0xA5>"};
  Json merges = Json::array();
  for (int i = 0; i < 60; ++i) {
    const std::string& left = tokens[1 + random() % (tokens.size() - 1)];
    const std::string& right = tokens[1 + random() % (tokens.size() - 1)];
    merges.push_back({left, right});
    bpe.source.merges.add(left + " " + right);
    const std::string joined = left + right;
    if (std::find(tokens.begin(), tokens.end(), joined) == tokens.end()) tokens.push_back(joined);
  }
  Json vocab = Json::object();
  for (size_t id = 0; id < tokens.size(); ++id) {
    vocab[tokens[id]] = id;
    bpe.source.tokens.add(tokens[id]);
  }
  bpe.json["model"]["vocab"] = vocab;
  bpe.json["model"]["merges"] = merges;
  return bpe;
}

void expect_equal(const Tokenizer& ours, const Tokenizer& library, std::mt19937& random) {
  const std::vector<std::string> letters = {"a", "b", "é", "▁", "🤖", "日", "x", "?"};
  for (int round = 0; round < 30; ++round) {
    const std::string text = random_text(random, letters);
    EXPECT_EQ(ours.encode(text), library.encode(text)) << text;
  }
}

TEST(TokenizerFromLists, listed_merges_give_what_the_library_gives) {
  std::mt19937 random(17);
  for (int round = 0; round < 40; ++round) {
    const RandomBpe bpe = random_bpe(random);
    const Tokenizer ours = Tokenizer::from_source(bpe.source);
    const Tokenizer library = Tokenizer::from_json(bpe.json.dump());
    ASSERT_EQ(ours.vocab_size(), library.vocab_size());
    for (int32_t id = 0; id < ours.vocab_size(); ++id) {
      EXPECT_EQ(ours.id_to_token(id), library.id_to_token(id));
    }
    expect_equal(ours, library, random);
  }
}

// generate_merges of transformers: every split of every token into two tokens, the best score
// first, then the longer left part, then the longer right part.
Json recovered_merges(const io::Texts& tokens, const std::vector<float>& scores) {
  const auto characters = [](std::string_view text) {
    return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; });
  };
  std::map<std::string_view, size_t> ids;
  for (size_t id = 0; id < tokens.size(); ++id) ids[tokens[id]] = id;
  using Key = std::tuple<float, int64_t, int64_t, size_t>;
  std::vector<std::pair<Key, Json>> found;
  for (size_t id = 0; id < tokens.size(); ++id) {
    for (size_t at = 1; at < tokens[id].size(); ++at) {
      const std::string_view left = tokens[id].substr(0, at);
      const std::string_view right = tokens[id].substr(at);
      if (!ids.contains(left) || !ids.contains(right)) continue;
      found.push_back({{-scores[id], -characters(left), -characters(right), id}, {left, right}});
    }
  }
  std::sort(found.begin(), found.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  Json merges = Json::array();
  for (const auto& [key, merge] : found) merges.push_back(merge);
  return merges;
}

TEST(TokenizerFromLists, scores_give_what_the_recovered_merges_give) {
  std::mt19937 random(23);
  for (int round = 0; round < 40; ++round) {
    RandomBpe bpe = random_bpe(random);
    bpe.source.merges = {};
    const bool in_order = round % 2 == 0;
    bpe.source.rule = in_order ? io::MergeRule::kInOrder : io::MergeRule::kScored;
    for (size_t id = 0; id < bpe.source.tokens.size(); ++id) {
      // Few distinct scores, so that the lengths decide often.
      const auto step = static_cast<float>(random() % 5);
      bpe.source.scores.push_back(in_order ? -static_cast<float>(id) : 2 - step);
    }
    bpe.json["model"]["merges"] = recovered_merges(bpe.source.tokens, bpe.source.scores);
    expect_equal(Tokenizer::from_source(bpe.source), Tokenizer::from_json(bpe.json.dump()), random);
  }
}

TEST(TokenizerFromLists, damaged_lists_are_refused) {
  std::mt19937 random(1);
  const RandomBpe good = random_bpe(random);
  const auto refusal = [](const io::TokenizerSource& source) -> std::string {
    try {
      Tokenizer::from_source(source);
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_NE(refusal({}).find("no tokenizer.json"), std::string::npos);
  io::TokenizerSource bad = good.source;
  bad.tokens.add("\xff");
  EXPECT_NE(refusal(bad).find("UTF-8"), std::string::npos);
  bad = good.source;
  bad.tokens.add("\xc3");  // two tokens that are UTF-8 only together
  bad.tokens.add("\xa9");
  EXPECT_NE(refusal(bad).find("UTF-8"), std::string::npos);
  bad = good.source;
  bad.merges.add("a z");
  EXPECT_NE(refusal(bad).find("lacks"), std::string::npos);
  bad = good.source;
  bad.merges.add("ab");
  EXPECT_NE(refusal(bad).find("not two tokens"), std::string::npos);
  bad = good.source;
  bad.rule = io::MergeRule::kScored;
  EXPECT_NE(refusal(bad).find("scores"), std::string::npos);
  bad = good.source;
  bad.json.replace(bad.json.find("\"?\""), 3, "\"!\"");
  EXPECT_NE(refusal(bad).find("lacks '!'"), std::string::npos);
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
