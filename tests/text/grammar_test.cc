#include "ttpu/text/grammar.h"

#include <map>
#include <random>
#include <regex>
#include <set>
#include <thread>

#include <gtest/gtest.h>

#include "ttpu/base/error.h"
#include "ttpu/base/file.h"
#include "ttpu/base/json.h"
#include "ttpu/io/config.h"

namespace ttpu::text {
namespace {

const std::filesystem::path kFolder =
    std::filesystem::path(TTPU_SOURCE_DIR) / "tests/fixtures/tokenizers";

const char* kPerson = R"({
  "type": "object",
  "properties": {"name": {"type": "string", "maxLength": 12},
                 "age": {"type": "integer", "minimum": 0, "maximum": 150},
                 "tags": {"type": "array", "items": {"enum": ["a", "\"b\"", "\u00e9"]}, "maxItems": 3}},
  "required": ["name", "age"], "additionalProperties": false})";

bool is_person(const std::string& text) {
  const Json value = Json::parse(text, nullptr, false);
  if (!value.is_object() || !value.contains("name") || !value.contains("age")) return false;
  for (const auto& [key, item] : value.items()) {
    if (key == "name") {
      if (!item.is_string()) return false;
    } else if (key == "age") {
      if (!item.is_number_integer() || item < 0 || item > 150) return false;
    } else if (key == "tags") {
      if (!item.is_array() || item.size() > 3) return false;
      for (const Json& tag : item) {
        if (tag != "a" && tag != "\"b\"" && tag != "é") return false;
      }
    } else {
      return false;
    }
  }
  return true;
}

// Of a fixture, or of a real model.
Tokenizer tokenizer_of(const std::string& name) {
  if (!name.ends_with(".gguf")) return Tokenizer::from_file(kFolder / (name + ".tokenizer.json"));
  return Tokenizer::from_source(
      io::load_model_files(
          std::filesystem::path(env_or("TTPU_TEST_DATA", (cache_dir() / "models").string())) / name)
          .tokenizer);
}

class GrammarFixture : public testing::TestWithParam<std::string> {
 protected:
  // Ids may have gaps, so that there are more of them than tokens.
  static int64_t vocab(const Tokenizer& tokenizer) { return tokenizer.vocab_size() + 100; }
  static int32_t end_token(const Tokenizer& tokenizer) {
    for (int32_t id = 0;; ++id) {
      if (tokenizer.is_special(id)) return id;
    }
  }

  std::vector<int32_t> allowed(GrammarMatcher& matcher) const {
    std::vector<uint32_t> words(static_cast<size_t>((vocab_ + 31) / 32));
    matcher.mask(words);
    std::vector<int32_t> tokens;
    for (int32_t id = 0; id < vocab_; ++id) {
      if ((words[static_cast<size_t>(id) / 32] >> (id % 32) & 1) != 0) tokens.push_back(id);
    }
    return tokens;
  }

  // A text of tokens drawn among those allowed, the short ones and those that end it rather.
  std::string wander(const Grammar& grammar, std::mt19937& random) const {
    GrammarMatcher matcher = grammar.matcher();
    std::vector<int32_t> text;
    while (!matcher.is_stopped() && text.size() < 2000) {
      const std::vector<int32_t> choices = allowed(matcher);
      EXPECT_FALSE(choices.empty());
      if (choices.empty()) return "";
      int32_t token = choices[random() % choices.size()];
      if (std::count(choices.begin(), choices.end(), end_) > 0 && random() % 2 == 0) token = end_;
      EXPECT_EQ(matcher.validate({&token, 1}), 1U);
      EXPECT_EQ(matcher.accept({&token, 1}), 1U) << token;
      if (token == end_) break;
      text.push_back(token);
    }
    return tokenizer_.decode(text, true);
  }

  // Made once for all tests of a tokenizer.
  struct Shared {
    explicit Shared(const std::string& name)
        : tokenizer(tokenizer_of(name)),
          vocab(GrammarFixture::vocab(tokenizer)),
          end(end_token(tokenizer)),
          compiler(tokenizer, vocab, {end}) {}
    Tokenizer tokenizer;
    int64_t vocab;
    int32_t end;
    GrammarCompiler compiler;
  };
  static const Shared& shared() {
    static std::map<std::string, Shared> all;
    return all.try_emplace(GetParam(), GetParam()).first->second;
  }

  const Tokenizer& tokenizer_ = shared().tokenizer;
  int64_t vocab_ = shared().vocab;
  int32_t end_ = shared().end;
  const GrammarCompiler& compiler_ = shared().compiler;
};

TEST_P(GrammarFixture, whatever_is_drawn_is_what_the_schema_asks_for) {
  const auto grammar = compiler_.compile(GrammarKind::kJsonSchema, kPerson);
  std::mt19937 random(1);
  for (int i = 0; i < 6; ++i) {
    const std::string text = wander(*grammar, random);
    EXPECT_TRUE(is_person(text)) << text;
  }
}

TEST_P(GrammarFixture, whatever_is_drawn_matches_the_expression) {
  const std::string pattern = "[a-c]{2,5}-(19|20)[0-9]{2}";
  const auto grammar = compiler_.compile(GrammarKind::kRegex, pattern);
  std::mt19937 random(2);
  for (int i = 0; i < 10; ++i) {
    const std::string text = wander(*grammar, random);
    EXPECT_TRUE(std::regex_match(text, std::regex(pattern))) << text;
  }
}

TEST_P(GrammarFixture, one_of_the_choices_comes) {
  const std::vector<std::string> choices = {"yes", "no", "\"quoted\"\nline \\ é 日本"};
  const auto grammar = compiler_.compile(GrammarKind::kChoices, Json(choices).dump());
  std::mt19937 random(3);
  std::set<std::string> seen;
  for (int i = 0; i < 40; ++i) seen.insert(wander(*grammar, random));
  EXPECT_EQ(seen, std::set<std::string>(choices.begin(), choices.end()));
}

TEST_P(GrammarFixture, a_lark_grammar_leads_the_text) {
  const auto grammar = compiler_.compile(
      GrammarKind::kLark, "start: sum\nsum: NUMBER (\" + \" NUMBER){1,3}\nNUMBER: /[1-9][0-9]?/");
  std::mt19937 random(4);
  for (int i = 0; i < 10; ++i) {
    const std::string text = wander(*grammar, random);
    EXPECT_TRUE(std::regex_match(text, std::regex("[1-9][0-9]?( \\+ [1-9][0-9]?){1,3}"))) << text;
  }
}

TEST_P(GrammarFixture, the_tokens_of_a_text_are_accepted_and_taken_back) {
  const auto grammar = compiler_.compile(GrammarKind::kJsonSchema, kPerson);
  const std::vector<int32_t> tokens =
      tokenizer_.encode(R"({"name": "Zoë 日本", "age": 31})", false);
  GrammarMatcher matcher = grammar->matcher();
  std::vector<std::vector<int32_t>> masks;
  ASSERT_EQ(matcher.validate(tokens), tokens.size());
  for (const int32_t token : tokens) {
    masks.push_back(allowed(matcher));
    ASSERT_EQ(matcher.accept({&token, 1}), 1U);
  }
  EXPECT_TRUE(matcher.is_stopped());
  EXPECT_EQ(allowed(matcher), std::vector{end_}) << "nothing follows but the end";
  EXPECT_EQ(matcher.validate({tokens.data(), 1}), 0U);
  for (size_t i = tokens.size(); i-- > 0;) {
    matcher.rollback(1);
    EXPECT_FALSE(matcher.is_stopped());
    EXPECT_EQ(allowed(matcher), masks[i]) << "as it was before token " << i;
  }
  EXPECT_EQ(matcher.accept(tokens), tokens.size());
  matcher.rollback(tokens.size());
  EXPECT_EQ(allowed(matcher), masks[0]);
}

INSTANTIATE_TEST_SUITE_P(All, GrammarFixture,
                         testing::Values("byte_level_qwen2", "byte_fallback",
                                         "smollm2-135m-instruct-q4_1.gguf",
                                         "gemma3-270m-q4_k_m.gguf"),
                         [](const auto& test) {
                           return test.param.substr(0, test.param.find('-'));
                         });

GrammarCompiler small_compiler(const std::string& name = "byte_level_qwen2") {
  const Tokenizer tokenizer = tokenizer_of(name);
  return GrammarCompiler(tokenizer, tokenizer.vocab_size(), {});
}

std::string refusal(const GrammarCompiler& compiler, GrammarKind kind, const std::string& text) {
  try {
    compiler.compile(kind, text);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kInvalidArgument) << error.what();
    return error.what();
  }
  return "";
}

TEST(Grammar, what_cannot_be_compiled_is_refused_with_the_reason) {
  const GrammarCompiler compiler = small_compiler();
  const std::vector<std::pair<GrammarKind, std::string>> cases = {
      {GrammarKind::kJsonSchema, "{"},
      {GrammarKind::kJsonSchema, "3"},
      {GrammarKind::kJsonSchema, R"({"type": "wrong"})"},
      {GrammarKind::kJsonSchema, R"({"$ref": "#/$defs/none"})"},
      {GrammarKind::kJsonSchema, "false"},
      {GrammarKind::kJsonSchema, R"({"type": "integer", "minimum": 3, "maximum": 2})"},
      {GrammarKind::kRegex, "("},
      {GrammarKind::kRegex, "a{2,1}"},
      {GrammarKind::kChoices, "[]"},
      {GrammarKind::kChoices, "{}"},
      {GrammarKind::kLark, ""},
      {GrammarKind::kLark, "start: nothing"},
      {GrammarKind::kLark, std::string(100'000, '(')},
      {GrammarKind::kLark, std::string(2'000'000, 'a')},
      {GrammarKind::kLark, std::string("start: \0", 9)},
  };
  for (const auto& [kind, text] : cases) {
    const std::string why = refusal(compiler, kind, text);
    EXPECT_NE(why.find("[grammar] the "), std::string::npos) << text.substr(0, 100);
    EXPECT_NE(why.find("change or simplify it"), std::string::npos) << why;
  }
}

TEST(Grammar, what_explodes_ends_early) {
  const GrammarCompiler compiler = small_compiler();
  for (const std::string text : {"((a{1,1000}){1,1000}){1,1000}", "(a?){5000}a{5000}",
                                 "(.*a){200}[ab]{900}c", "[a-z]{1,100000}[0-9]{1,100000}"}) {
    refusal(compiler, GrammarKind::kRegex, text);
  }
  std::string doubling = "start: a0\n";
  for (int i = 0; i < 40; ++i) doubling += fmt::format("a{}: a{} a{}\n", i, i + 1, i + 1);
  refusal(compiler, GrammarKind::kLark, doubling + "a40: \"x\"");
  Json nested = {{"type", "object"}};
  for (int i = 0; i < 12; ++i) nested = {{"allOf", Json::array({nested, nested, nested})}};
  EXPECT_NE(refusal(compiler, GrammarKind::kJsonSchema, nested.dump()), "");
}

TEST(Grammar, tokenizers_that_do_not_spell_are_refused) {
  for (const char* name : {"word_piece", "word_level", "word_suffix", "unigram"}) {
    const GrammarCompiler compiler = small_compiler(name);
    try {
      compiler.compile(GrammarKind::kRegex, "a");
      ADD_FAILURE() << name;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kInvalidArgument);
      EXPECT_NE(std::string(error.what()).find("need a tokenizer"), std::string::npos);
    }
  }
}

TEST(Grammar, texts_in_several_threads_do_not_disturb_each_other) {
  const GrammarCompiler compiler = small_compiler();
  const auto grammar = compiler.compile(GrammarKind::kRegex, "[a-z]{40}");
  EXPECT_EQ(compiler.compile(GrammarKind::kRegex, "[a-z]{40}"), grammar) << "it is kept";
  const std::vector<int32_t> tokens =
      tokenizer_of("byte_level_qwen2").encode("abcdefghijklmnopqrstuvwxyzabcdefghijklmn", false);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      GrammarMatcher matcher = grammar->matcher();
      for (const int32_t token : tokens) {
        EXPECT_EQ(matcher.accept({&token, 1}), 1U);
        EXPECT_FALSE(matcher.forced().size() > 40);
      }
      EXPECT_TRUE(matcher.is_stopped());
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace ttpu::text
