#include "ttpu/text/chat_template.h"

#include <filesystem>
#include <thread>

#include <gtest/gtest.h>

#include "tests/support/error_of.h"

namespace ttpu::text {
namespace {

// 26 July 2024, 15:04:05: the clock of tools/make_template_fixtures.py.
std::tm fixed_now() {
  std::tm now{};
  now.tm_year = 124;
  now.tm_mon = 6;
  now.tm_mday = 26;
  now.tm_hour = 15;
  now.tm_min = 4;
  now.tm_sec = 5;
  now.tm_wday = 5;
  now.tm_yday = 207;
  return now;
}

const Json kUser = Json::array({{{"role", "user"}, {"content", "Hello"}}});

class ChatTemplateFixture : public testing::TestWithParam<std::string> {};

RenderOptions options_of(const Json& fixture, const Json& one) {
  RenderOptions options;
  options.now = fixed_now();
  options.variables = one.contains("variables") ? one["variables"] : fixture["variables"];
  if (one.contains("tools")) options.tools = one["tools"];
  if (one.contains("documents")) options.documents = one["documents"];
  if (!one.contains("options")) return options;
  options.add_generation_prompt = one["options"].value("add_generation_prompt", false);
  if (const auto found = one["options"].find("continue_final_message");
      found != one["options"].end()) {
    options.continue_final_message = true;
    if (found->is_string()) options.continue_field = *found;
  }
  return options;
}

TEST_P(ChatTemplateFixture, renders_as_transformers_does) {
  const Json fixture = read_json(std::filesystem::path(TTPU_SOURCE_DIR) /
                                 "tests/fixtures/chat_templates" / GetParam());
  ASSERT_FALSE(fixture["cases"].empty());
  for (const Json& one : fixture["cases"]) {
    const std::string source = fixture["templates"][one["template"].get<size_t>()];
    SCOPED_TRACE(source.size() < 300 ? source : one["messages"].dump(-1, ' ', false));
    const auto render = [&] {
      return ChatTemplate(source).render(one["messages"], options_of(fixture, one));
    };
    if (one.contains("error")) {
      const std::string message = error_of(render, Code::kInvalidArgument);
      EXPECT_NE(message.find(one["error"].get<std::string>()), std::string::npos) << message;
      continue;
    }
    try {
      EXPECT_EQ(render(), one["expected"].get<std::string>());
    } catch (const Error& error) {
      ADD_FAILURE() << error.what() << "\nexpected: " << one["expected"];
    }
  }
}

std::vector<std::string> fixture_names() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(
           std::filesystem::path(TTPU_SOURCE_DIR) / "tests/fixtures/chat_templates")) {
    names.push_back(entry.path().filename().string());
  }
  std::ranges::sort(names);
  return names;
}

INSTANTIATE_TEST_SUITE_P(All, ChatTemplateFixture, testing::ValuesIn(fixture_names()),
                         [](const auto& test) {
                           return test.param.substr(0, test.param.find('.'));
                         });

TEST(ChatTemplate, an_endless_loop_ends_with_an_error) {
  const ChatTemplate endless(
      "{% for a in range(100000) %}{% for b in range(100000) %}{% set x = b %}{% endfor %}"
      "{% endfor %}");
  RenderOptions options;
  options.max_steps = 1'000'000;
  const std::string message =
      error_of([&] { endless.render(kUser, options); }, Code::kResourceExhausted);
  EXPECT_NE(message.find("1000000 steps"), std::string::npos) << message;
}

TEST(ChatTemplate, an_output_too_large_ends_with_an_error) {
  const ChatTemplate large("{% for a in range(10000) %}{{ 'x' * 1000 }}{% endfor %}");
  RenderOptions options;
  options.max_output_bytes = 100'000;
  const std::string message =
      error_of([&] { large.render(kUser, options); }, Code::kResourceExhausted);
  EXPECT_NE(message.find("100000 bytes"), std::string::npos) << message;
}

TEST(ChatTemplate, a_text_that_doubles_without_end_is_bounded) {
  const ChatTemplate doubling(
      "{% set ns = namespace(s='x') %}{% for a in range(200) %}{% set ns.s = ns.s + ns.s %}"
      "{% endfor %}{{ ns.s }}");
  error_of([&] { doubling.render(kUser); }, Code::kResourceExhausted);
}

TEST(ChatTemplate, endless_recursion_ends_with_an_error) {
  const ChatTemplate recursive("{% macro f(x) %}{{ f(x + 1) }}{% endmacro %}{{ f(0) }}");
  error_of([&] { recursive.render(kUser); }, Code::kInvalidArgument);
}

std::string repeat(std::string_view text, int count) {
  std::string result;
  for (int i = 0; i < count; ++i) result += text;
  return result;
}

TEST(ChatTemplate, deeply_nested_sources_and_values_do_not_overflow_the_stack) {
  error_of([] { ChatTemplate("{{ " + repeat("(", 100'000)); }, Code::kInvalidArgument);
  error_of([] { ChatTemplate(repeat("{% if 1 %}", 20'000)); }, Code::kInvalidArgument);
  error_of([] { ChatTemplate(repeat("x", 1'000'000)); }, Code::kResourceExhausted);
  EXPECT_EQ(ChatTemplate("{{ 1" + repeat("+1", 100'000) + " }}").render(kUser), "100001");
  EXPECT_EQ(ChatTemplate("{{ 'a'" + repeat("|upper", 50'000) + " }}").render(kUser), "A");
  const ChatTemplate nested(
      "{% set ns = namespace(l=[]) %}{% for i in range(9000) %}{% set ns.l = " + repeat("[", 40) +
      "ns.l" + repeat("]", 40) + " %}{% endfor %}done");
  EXPECT_EQ(nested.render(kUser), "done");
}

TEST(ChatTemplate, an_error_while_rendering_names_the_line) {
  const ChatTemplate broken("{{ messages[0].content }}\n\n{{ missing.attribute }}");
  const std::string message = error_of([&] { broken.render(kUser); }, Code::kInvalidArgument);
  EXPECT_NE(message.find("line 3"), std::string::npos) << message;
}

TEST(ChatTemplate, refuses_messages_that_are_no_conversation) {
  const ChatTemplate any("{{ messages }}");
  error_of([&] { any.render(Json::object()); }, Code::kInvalidArgument);
  error_of([&] { any.render(Json::array({"text"})); }, Code::kInvalidArgument);
  error_of(
      [&] {
        any.render(Json::array({{{"role", "user"}, {"content", "\xff"}}}));
      },
      Code::kInvalidArgument);
  error_of([] { ChatTemplate("{{ '\xff' }}"); }, Code::kInvalidArgument);
}

TEST(ChatTemplate, the_system_clock_is_used_when_none_is_given) {
  const std::string year = ChatTemplate("{{ strftime_now('%Y') }}").render(kUser);
  EXPECT_GE(std::stoi(year), 2024);
}

TEST(ChatTemplate, renders_on_several_threads_at_once) {
  const ChatTemplate shared("{% for i in range(50) %}{{ messages[0].content ~ i }}{% endfor %}");
  const std::string expected = shared.render(kUser);
  std::vector<std::string> results(4);
  std::vector<std::thread> threads;
  for (std::string& result : results) {
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) result = shared.render(kUser);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::string& result : results) EXPECT_EQ(result, expected);
}

}  // namespace
}  // namespace ttpu::text
