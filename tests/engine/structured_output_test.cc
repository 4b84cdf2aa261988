// Answers that a grammar leads, by SmolLM2.
#include <map>
#include <regex>

#include <gtest/gtest.h>

#include "ttpu/base/file.h"
#include "ttpu/base/json.h"
#include "ttpu/engine/engine.h"

namespace ttpu::engine {
namespace {

struct Answer {
  std::string text;
  std::vector<int32_t> tokens;
  std::optional<FinishReason> finished;
  std::string error;
};

Engine& smollm2(int64_t guesses) {
  static std::map<int64_t, std::unique_ptr<Engine>> engines;
  std::unique_ptr<Engine>& engine = engines[guesses];
  if (engine == nullptr) {
    EngineOptions options;
    options.dtype = DType::kF32;
    options.max_model_len = 256;
    options.max_num_seqs = 4;
    options.max_num_batched_tokens = 128;
    options.lazy_programs = true;
    options.speculation.num_speculative_tokens = guesses;
    engine = std::make_unique<Engine>(
        std::filesystem::path(env_or("TTPU_TEST_DATA", (cache_dir() / "models").string())) /
            "smollm2-135m-instruct-q4_1.gguf",
        options);
  }
  return *engine;
}

Request ask(Engine& engine, const std::string& question,
            std::optional<StructuredOutputsParams> outputs) {
  Request request;
  request.prompt =
      engine.text().encode_chat(Json::array({{{"role", "user"}, {"content", question}}}));
  request.sampling.max_tokens = 80;
  request.sampling.structured_outputs = std::move(outputs);
  return request;
}

std::vector<Answer> run(Engine& engine, const std::vector<Request>& requests) {
  std::vector<Answer> answers(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    engine.submit(requests[i], [&answer = answers[i]](const RequestOutput& output) {
      answer.text += output.text;
      answer.tokens.insert(answer.tokens.end(), output.tokens.begin(), output.tokens.end());
      answer.finished = output.finished;
      answer.error = output.error;
    });
  }
  while (engine.step()) {
  }
  EXPECT_EQ(engine.metrics().cache_usage, 0) << "no block leaks";
  return answers;
}

const char* kAnimal = R"({"type": "object", "properties": {
  "animal": {"enum": ["dog", "cat", "fish"]}, "legs": {"type": "integer", "minimum": 0, "maximum": 8},
  "sounds": {"type": "array", "items": {"type": "string", "maxLength": 8}, "minItems": 2, "maxItems": 2}},
  "required": ["animal", "legs", "sounds"], "additionalProperties": false})";

std::vector<Request> requests_of(Engine& engine) {
  std::vector<Request> requests = {
      ask(engine, "Describe a cat as JSON.", StructuredOutputsParams{.json = kAnimal}),
      ask(engine, "Which year was it?", StructuredOutputsParams{.regex = "In (19|20)[0-9]{2}\\."}),
      ask(engine, "Is the sea blue?", StructuredOutputsParams{.choice = {"maybe", "of course"}}),
      ask(engine, "Count.", StructuredOutputsParams{.grammar = "start: \"one\" (\", two\"){2,4}"}),
      ask(engine, "What is the capital of France?", std::nullopt)};
  for (int i = 0; i < 2; ++i) {
    Request sampled = requests[static_cast<size_t>(i)];
    sampled.sampling.temperature = 1.2;
    sampled.sampling.seed = 5;
    requests.push_back(sampled);
  }
  return requests;
}

void expect_structured(const std::vector<Answer>& answers) {
  for (const size_t i : {0, 5}) {
    const Json animal = Json::parse(answers[i].text, nullptr, false);
    ASSERT_TRUE(animal.is_object()) << answers[i].text;
    EXPECT_EQ(animal.size(), 3U);
    EXPECT_TRUE(animal["animal"] == "dog" || animal["animal"] == "cat" ||
                animal["animal"] == "fish");
    EXPECT_TRUE(animal["legs"].is_number_integer() && animal["legs"] <= 8) << answers[i].text;
    EXPECT_EQ(animal["sounds"].size(), 2U);
  }
  for (const size_t i : {1, 6}) {
    EXPECT_TRUE(std::regex_match(answers[i].text, std::regex("In (19|20)[0-9]{2}\\.")))
        << answers[i].text;
  }
  EXPECT_TRUE(answers[2].text == "maybe" || answers[2].text == "of course") << answers[2].text;
  EXPECT_TRUE(std::regex_match(answers[3].text, std::regex("one(, two){2,4}"))) << answers[3].text;
  EXPECT_NE(answers[4].text.find("Paris"), std::string::npos) << answers[4].text;
  for (const Answer& answer : answers) {
    EXPECT_EQ(answer.finished, FinishReason::kStop) << answer.text << answer.error;
  }
}

TEST(StructuredOutput, AnswersAreWhatIsAskedForWithAndWithoutGuesses) {
  const std::vector<Request> requests = requests_of(smollm2(0));
  const std::vector<Answer> plain = run(smollm2(0), requests);
  expect_structured(plain);
  Engine& guessing = smollm2(3);
  const std::vector<Answer> guessed = run(guessing, requests);
  EXPECT_GT(guessing.metrics().accepted_draft_tokens, 0);
  for (size_t i = 0; i < plain.size(); ++i) EXPECT_EQ(guessed[i].tokens, plain[i].tokens) << i;
  const std::vector<Answer> alone = run(smollm2(0), {requests[0]});
  EXPECT_EQ(alone[0].tokens, plain[0].tokens) << "whatever else is in the batch";
}

TEST(StructuredOutput, WhereNothingMayComeTheAnswerEndsWithTheReason) {
  Engine& engine = smollm2(0);
  Request request = ask(engine, "Hi", StructuredOutputsParams{.choice = {"a"}});
  const auto token = engine.text().tokenizer().encode("a", false);
  request.sampling.bad_words = {token};
  const Answer answer = run(engine, {request})[0];
  EXPECT_EQ(answer.finished, FinishReason::kError);
  EXPECT_NE(answer.error.find("bad_words"), std::string::npos) << answer.error;
}

TEST(StructuredOutput, WhatCannotBeIsRefusedWhenItIsAskedFor) {
  Engine& engine = smollm2(0);
  for (const StructuredOutputsParams& outputs :
       {StructuredOutputsParams{}, StructuredOutputsParams{.json = "{"},
        StructuredOutputsParams{.regex = "a", .json_object = true},
        StructuredOutputsParams{.choice = {""}}}) {
    EXPECT_THROW(engine.submit(ask(engine, "Hi", outputs), [](const RequestOutput&) {}), Error);
  }
}

}  // namespace
}  // namespace ttpu::engine
