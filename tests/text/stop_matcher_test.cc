#include "ttpu/text/stop_matcher.h"

#include <random>

#include <gtest/gtest.h>

#include "ttpu/base/error.h"

namespace ttpu::text {
namespace {

struct Outcome {
  std::string text;
  bool matched;
};

Outcome run(const std::vector<std::string>& stops, bool include, const std::string& text,
            std::mt19937& random) {
  StopMatcher matcher(stops, include);
  Outcome outcome{"", false};
  for (size_t at = 0; at < text.size() && !outcome.matched;) {
    const size_t size = 1 + random() % 4;
    const StopMatcher::Result result = matcher.push(std::string_view(text).substr(at, size));
    outcome.text += result.text;
    outcome.matched = result.matched;
    at += size;
  }
  if (!outcome.matched) outcome.text += matcher.flush();
  return outcome;
}

// By the definition: the first end of any stop string, then the longest that ends there.
Outcome expected(const std::vector<std::string>& stops, bool include, const std::string& text) {
  size_t best_end = std::string::npos, best_size = 0;
  for (const std::string& stop : stops) {
    const size_t at = text.find(stop);
    if (at == std::string::npos) continue;
    const size_t end = at + stop.size();
    if (end < best_end || (end == best_end && stop.size() > best_size)) {
      best_end = end;
      best_size = stop.size();
    }
  }
  if (best_end == std::string::npos) return {text, false};
  return {text.substr(0, include ? best_end : best_end - best_size), true};
}

TEST(StopMatcher, agrees_with_a_search_of_the_whole_text_however_it_is_cut) {
  std::mt19937 random(7);
  const auto word = [&](size_t longest) {
    std::string text(1 + random() % longest, 'a');
    for (char& c : text) c = static_cast<char>('a' + random() % 3);
    return text;
  };
  size_t matches = 0;
  for (int round = 0; round < 5000; ++round) {
    std::vector<std::string> stops(random() % 4);
    for (std::string& stop : stops) stop = word(5);
    const std::string text = word(40);
    const bool include = random() % 2 == 0;
    const Outcome want = expected(stops, include, text);
    const Outcome got = run(stops, include, text, random);
    ASSERT_EQ(got.text, want.text) << text;
    ASSERT_EQ(got.matched, want.matched) << text;
    matches += want.matched ? 1 : 0;
  }
  EXPECT_GT(matches, 1000u);
  EXPECT_LT(matches, 4900u);
}

TEST(StopMatcher, holds_back_only_what_may_become_a_stop_string) {
  StopMatcher matcher({"</s>", "<|im_end|>"});
  EXPECT_EQ(matcher.push("hello <").text, "hello ");
  EXPECT_EQ(matcher.push("|im_").text, "");
  EXPECT_EQ(matcher.push("start|> x").text, "<|im_start|> x");
  EXPECT_EQ(matcher.push("<|im_end").text, "");
  const StopMatcher::Result result = matcher.push("|> never shown");
  EXPECT_EQ(result.text, "");
  EXPECT_TRUE(result.matched);
  EXPECT_EQ(matcher.stop(), "<|im_end|>");
  EXPECT_TRUE(matcher.push("more").matched);
}

TEST(StopMatcher, flush_gives_what_was_held_back_and_starts_a_new_text) {
  StopMatcher matcher({"END"});
  EXPECT_EQ(matcher.push("the EN").text, "the ");
  EXPECT_EQ(matcher.flush(), "EN");
  EXPECT_FALSE(matcher.push("D").matched);
}

TEST(StopMatcher, include_stop_keeps_the_stop_string) {
  StopMatcher matcher({"\n\n"}, true);
  EXPECT_EQ(matcher.push("a\n").text, "a");
  EXPECT_EQ(matcher.push("\nb").text, "\n\n");
}

TEST(StopMatcher, of_two_that_end_together_the_longer_is_cut) {
  StopMatcher matcher({"b", "ab"});
  EXPECT_EQ(matcher.push("xab").text, "x");
  EXPECT_EQ(matcher.stop(), "ab");
}

TEST(StopMatcher, refuses_an_empty_stop_string) { EXPECT_THROW(StopMatcher({""}), Error); }

}  // namespace
}  // namespace ttpu::text
