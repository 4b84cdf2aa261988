// The engine on tiny random models, from requests to tokens.
#include "ttpu/engine/engine.h"

#include <chrono>
#include <cmath>
#include <filesystem>
#include <random>
#include <thread>

#include <gtest/gtest.h>

#include "tests/engine/support/stepper.h"

namespace ttpu::engine {
namespace {

std::filesystem::path model_path(const std::string& name) {
  return std::filesystem::path(TTPU_SOURCE_DIR) / "tests/fixtures/models" / name;
}

struct Answer {
  std::vector<int32_t> tokens;
  std::vector<TokenLogprobs> logprobs;
  std::vector<TokenLogprobs> prompt_logprobs;
  std::optional<FinishReason> finished;
  std::string stop;
  int64_t cached_tokens = 0;
};

// Submits all, then runs to the end.
std::vector<Answer> run(Engine& engine, const std::vector<Request>& requests) {
  std::vector<Answer> answers(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    engine.submit(requests[i], [&answer = answers[i]](const RequestOutput& output) {
      EXPECT_FALSE(answer.finished) << "nothing comes after the end";
      answer.tokens.insert(answer.tokens.end(), output.tokens.begin(), output.tokens.end());
      answer.logprobs.insert(answer.logprobs.end(), output.logprobs.begin(), output.logprobs.end());
      for (const auto& one : output.prompt_logprobs) answer.prompt_logprobs.push_back(one);
      answer.finished = output.finished;
      answer.stop = output.stop;
      answer.cached_tokens = output.cached_tokens;
    });
  }
  while (engine.step()) {
  }
  EXPECT_EQ(engine.metrics().cache_usage, 0) << "no block leaks";
  return answers;
}

EngineOptions small_options() {
  EngineOptions options;
  options.dtype = DType::kF32;
  options.max_model_len = 48;
  options.block_size = 4;
  options.max_num_batched_tokens = 16;
  return options;
}

Request request_of(std::vector<int32_t> prompt, int64_t max_tokens) {
  Request request;
  request.prompt = std::move(prompt);
  request.sampling.max_tokens = max_tokens;
  request.sampling.ignore_eos = true;
  return request;
}

std::vector<Request> mixed_requests(size_t count) {
  std::mt19937 random(7);
  std::vector<Request> requests;
  for (size_t i = 0; i < count; ++i) {
    std::vector<int32_t> prompt(1 + random() % 24);
    for (int32_t& token : prompt) token = static_cast<int32_t>(3 + random() % 90);
    Request request = request_of(prompt, static_cast<int64_t>(1 + random() % 20));
    if (i % 3 == 1) {
      request.sampling.temperature = 1;
      request.sampling.seed = i;
      request.sampling.top_p = 0.9;
    }
    if (i % 3 == 2) {
      request.sampling.temperature = 0.7;
      request.sampling.seed = i;
      request.sampling.top_k = 20;
      request.sampling.repetition_penalty = 1.3;
      request.sampling.frequency_penalty = 0.5;
    }
    requests.push_back(std::move(request));
  }
  return requests;
}

TEST(EngineTimes, CallbacksAndDispatchAreTheHosts) {
  Engine engine(model_path("llama"), small_options());
  Request request = request_of({5, 6, 7}, 4);
  request.sampling.ignore_eos = true;
  constexpr auto kPause = std::chrono::milliseconds(5);
  engine.submit(request, [&](const RequestOutput&) { std::this_thread::sleep_for(kPause); });
  const auto start = std::chrono::steady_clock::now();
  while (engine.step()) {
  }
  const std::chrono::duration<double> all = std::chrono::steady_clock::now() - start;
  const EngineMetrics& metrics = engine.metrics();
  EXPECT_GT(metrics.dispatch_seconds, 0);
  EXPECT_GE(metrics.host_seconds,
            metrics.dispatch_seconds + 4 * std::chrono::duration<double>(kPause).count());
  EXPECT_LT(metrics.host_seconds, all.count()) << "the device was awaited";
  EXPECT_GT(metrics.engine_cpu_seconds, 0);
  EXPECT_LT(metrics.engine_cpu_seconds, metrics.host_seconds - metrics.dispatch_seconds)
      << "callbacks that sleep are not running";
}

class EngineFamiliesTest : public testing::TestWithParam<const char*> {};

TEST_P(EngineFamiliesTest, AnAnswerDoesNotDependOnWhatElseIsInTheBatch) {
  const std::vector<Request> requests = mixed_requests(14);
  EngineOptions options = small_options();
  std::vector<Answer> alone;
  {
    Engine engine(model_path(GetParam()), options);
    for (const Request& request : requests) alone.push_back(run(engine, {request})[0]);
  }
  options.max_num_seqs = 5;
  options.num_blocks = 16;  // of 60 that five full sequences would take
  Engine engine(model_path(GetParam()), options);
  const std::vector<Answer> together = run(engine, requests);
  EXPECT_GT(engine.metrics().preemptions, 0) << "the cache was large enough: nothing was tried";
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(together[i].tokens, alone[i].tokens) << "request " << i;
    EXPECT_EQ(together[i].finished, FinishReason::kLength);
    EXPECT_EQ(together[i].tokens.size(), static_cast<size_t>(requests[i].sampling.max_tokens));
  }
  EXPECT_EQ(engine.compilations_after_start(), 0);
}

TEST_P(EngineFamiliesTest, SpeculationDoesNotChangeTheAnswers) {
  std::vector<Request> requests = mixed_requests(9);
  for (size_t i = 0; i < requests.size(); ++i) {
    // Likely repetitions, so that guesses are right now and then.
    requests[i].sampling.logit_bias = {{40, 3.0F}, {41, 3.0F}};
    requests[i].sampling.max_tokens = 20;
    if (i % 3 == 0) requests[i].sampling.logprobs = 1;
  }
  EngineOptions options = small_options();
  options.max_num_seqs = 3;
  std::vector<Answer> plain;
  {
    Engine engine(model_path(GetParam()), options);
    plain = run(engine, requests);
  }
  options.speculation.num_speculative_tokens = 3;
  options.speculation.prompt_lookup_min = 1;
  Engine engine(model_path(GetParam()), options);
  const std::vector<Answer> guessed = run(engine, requests);
  EXPECT_GT(engine.metrics().accepted_draft_tokens, 0);
  EXPECT_LT(engine.metrics().accepted_draft_tokens, engine.metrics().draft_tokens);
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(guessed[i].tokens, plain[i].tokens) << "request " << i;
    ASSERT_EQ(guessed[i].logprobs.size(), plain[i].logprobs.size());
    for (size_t k = 0; k < plain[i].logprobs.size(); ++k) {
      EXPECT_NEAR(guessed[i].logprobs[k].logprob, plain[i].logprobs[k].logprob, 1e-4);
    }
  }
}

// The draft is the model itself, or another one of random weights.
TEST_P(EngineFamiliesTest, ADraftModelDoesNotChangeTheAnswers) {
  std::vector<Request> requests = mixed_requests(9);
  for (Request& request : requests) request.sampling.repetition_penalty = 1;
  for (Request& request : requests) request.sampling.frequency_penalty = 0;
  EngineOptions options = small_options();
  options.max_num_seqs = 3;
  std::vector<Answer> plain;
  {
    Engine engine(model_path(GetParam()), options);
    plain = run(engine, requests);
  }
  options.num_blocks = 14;  // some lose their place, and come back in another
  options.speculation.num_speculative_tokens = 3;
  for (const std::string name : {GetParam(), "qwen3"}) {
    options.speculation.model = model_path(name).string();
    Engine engine(model_path(GetParam()), options);
    const std::vector<Answer> guessed = run(engine, requests);
    const auto right = static_cast<double>(engine.metrics().accepted_draft_tokens);
    const auto all = static_cast<double>(engine.metrics().draft_tokens);
    EXPECT_GT(all, 0);
    if (name == GetParam()) {
      EXPECT_GT(right, 0.9 * all) << "it draws with the same random numbers";
    } else {
      EXPECT_LT(right, 0.9 * all);
    }
    for (size_t i = 0; i < requests.size(); ++i) {
      EXPECT_EQ(guessed[i].tokens, plain[i].tokens) << "request " << i << ", draft " << name;
    }
    EXPECT_EQ(engine.compilations_after_start(), 0);
  }
}

TEST_P(EngineFamiliesTest, SeveralAnswersToAPromptAreThoseOfSeparateRequests) {
  std::vector<Request> requests;
  for (const size_t length : {11u, 12u, 1u}) {  // with and without a block that is partly full
    for (uint64_t seed = 0; seed < 3; ++seed) {
      Request request = request_of({}, 9);
      for (size_t i = 0; i < length; ++i) {
        request.prompt.push_back(static_cast<int32_t>(5 + 7 * i % 60 + length));
      }
      request.sampling.temperature = 1;
      request.sampling.seed = seed;
      if (seed == 2) request.sampling.repetition_penalty = 1.2;
      requests.push_back(std::move(request));
    }
  }
  EngineOptions options = small_options();
  options.max_num_seqs = 4;
  Engine engine(model_path(GetParam()), options);
  const std::vector<Answer> together = run(engine, requests);
  EXPECT_EQ(engine.compilations_after_start(), 0);
  options.prefix_caching = false;
  Engine separate(model_path(GetParam()), options);
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(together[i].tokens, run(separate, {requests[i]})[0].tokens) << "request " << i;
    // All but the last token, or, where a window no longer shows it, the full blocks.
    const bool windows =
        GetParam() == std::string("gemma3_text") || GetParam() == std::string("gpt_oss");
    if (i == 1) {
      EXPECT_EQ(together[i].cached_tokens, windows ? 8 : 10);
    }
  }
}

TEST_P(EngineFamiliesTest, CachesOfEightBitsServeManyAsOne) {
  const std::vector<Request> requests = mixed_requests(5);
  for (const DType dtype : {DType::kS8, DType::kF8E4M3FN}) {
    EngineOptions options = small_options();
    options.cache_dtype = dtype;
    options.max_num_seqs = 3;
    Engine engine(model_path(GetParam()), options);
    const std::vector<Answer> together = run(engine, requests);
    for (size_t i = 0; i < requests.size(); ++i) {
      EXPECT_EQ(together[i].tokens, run(engine, {requests[i]})[0].tokens) << "request " << i;
    }
  }
}

TEST(Speculation, LooksUpWhatFollowedTheLastTokens) {
  const SpeculationOptions options{3, 3, 2};
  EXPECT_EQ(propose_by_lookup(std::vector<int32_t>{1, 2, 3, 4, 5, 1, 2}, options, 3),
            (std::vector<int32_t>{3, 4, 5}));
  EXPECT_EQ(propose_by_lookup(std::vector<int32_t>{1, 2, 3, 9, 1, 2, 4, 1, 2}, options, 2),
            (std::vector<int32_t>{4, 1}))
      << "the last occurrence";
  EXPECT_TRUE(propose_by_lookup(std::vector<int32_t>{1, 2, 3}, options, 3).empty());
  EXPECT_TRUE(propose_by_lookup(std::vector<int32_t>{1}, options, 3).empty());
}

TEST(Speculation, ReadsTheConfigurationOfVllm) {
  const auto read = [](const char* text) {
    return speculation_from_config(parse_json(text, "a test"));
  };
  const SpeculationOptions draft = read(R"({"model": "small", "num_speculative_tokens": 4})");
  EXPECT_EQ(draft.model, "small");
  EXPECT_EQ(draft.num_speculative_tokens, 4);
  EXPECT_EQ(read(R"({"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 3})")
                .prompt_lookup_max,
            3);
  EXPECT_THROW(read(R"({"num_speculative_tokens": 4, "draft": "small"})"), Error);
  EXPECT_THROW(read(R"({"num_speculative_tokens": 4, "method": "eagle"})"), Error);
  EXPECT_THROW(read("[]"), Error);
}

TEST(Speculation, RestsWhenGuessesDoNotPay) {
  SpeculationGovernor governor;
  for (int i = 0; i < 10; ++i) governor.plain_step(0.01);
  for (int i = 0; i < 100; ++i) governor.speculative_step(0.02, 1, 3);
  EXPECT_TRUE(governor.speculate()) << "three tokens in the time of two";
  for (int i = 0; i < 24; ++i) governor.speculative_step(0.02, 1, 1);
  for (int i = 0; i < 24; ++i) governor.speculative_step(0.02, 1, 1);
  EXPECT_FALSE(governor.speculate());
  for (int i = 0; i < 256; ++i) governor.plain_step(0.01);
  EXPECT_TRUE(governor.speculate()) << "it tries again";
}

INSTANTIATE_TEST_SUITE_P(Families, EngineFamiliesTest,
                         testing::Values("llama", "gemma3_text", "deepseek_v2", "gpt_oss"),
                         [](const auto& test) { return std::string(test.param); });

class EngineTest : public testing::Test {
 protected:
  static EngineOptions options() {
    EngineOptions options = small_options();
    options.max_num_seqs = 4;
    return options;
  }
  Engine engine_{model_path("llama"), options()};
  std::vector<int32_t> prompt_ = {1, 17, 30, 44, 5, 6, 71, 8, 9, 20};
};

TEST_F(EngineTest, ASecondStartCompilesNothing) {
  EXPECT_EQ(Engine(model_path("llama"), options()).stats().compiled, 0);
}

TEST_F(EngineTest, TheSameSeedGivesTheSameTokensAndAnotherSeedOthers) {
  Request request = request_of(prompt_, 12);
  request.sampling.temperature = 1;
  request.sampling.seed = 3;
  Request other = request;
  other.sampling.seed = 4;
  const std::vector<Answer> answers = run(engine_, {request, request, other});
  EXPECT_EQ(answers[0].tokens, answers[1].tokens);
  EXPECT_NE(answers[0].tokens, answers[2].tokens);
}

TEST_F(EngineTest, LogProbabilitiesAreThoseOfTheModelsLogits) {
  Request request = request_of(prompt_, 4);
  request.sampling.logprobs = 3;
  request.sampling.prompt_logprobs = 2;
  const Answer answer = run(engine_, {request})[0];
  ASSERT_EQ(answer.logprobs.size(), 4u);
  ASSERT_EQ(answer.prompt_logprobs.size(), prompt_.size() - 1);

  Stepper stepper(read_json(model_path("llama") / "config.json"), model_path("llama"), {});
  const auto expect = [&](std::span<const float> logits, const TokenLogprobs& actual,
                          size_t count) {
    double sum = 0;
    for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
    const auto logprob = [&](int32_t token) {
      return static_cast<double>(logits[static_cast<size_t>(token)]) - std::log(sum);
    };
    EXPECT_NEAR(actual.logprob, logprob(actual.token), 1e-4);
    ASSERT_EQ(actual.top.size(), count);
    for (size_t i = 0; i < count; ++i) {
      EXPECT_NEAR(actual.top[i].second, logprob(actual.top[i].first), 1e-4);
      EXPECT_LE(actual.top[i].second, actual.top[0].second);
    }
  };
  std::vector<int32_t> tokens = prompt_;
  tokens.insert(tokens.end(), answer.tokens.begin(), answer.tokens.end());
  for (size_t i = 0; i + 1 < tokens.size(); ++i) {
    const std::span<const float> logits = stepper.append(std::span(&tokens[i], 1));
    const bool in_prompt = i + 1 < prompt_.size();
    const TokenLogprobs& actual =
        in_prompt ? answer.prompt_logprobs[i] : answer.logprobs[i + 1 - prompt_.size()];
    EXPECT_EQ(actual.token, tokens[i + 1]);
    expect(logits, actual, in_prompt ? 2 : 3);
  }
}

TEST_F(EngineTest, BiasPenaltiesAndForbiddenWordsChangeWhatIsSampled) {
  Request forced = request_of(prompt_, 6);
  forced.sampling.logit_bias = {{42, 100.0F}};
  Request varied = forced;  // 42 is likeliest until it has been said
  varied.sampling.frequency_penalty = 2;
  varied.sampling.logit_bias = {{42, 3.0F}};
  Request forbidden = forced;
  forbidden.sampling.bad_words = {{42}};
  Request pair = forced;
  pair.sampling.bad_words = {{42, 42}};
  const std::vector<Answer> answers = run(engine_, {forced, varied, forbidden, pair});
  EXPECT_EQ(answers[0].tokens, std::vector<int32_t>(6, 42));
  EXPECT_NE(answers[1].tokens, std::vector<int32_t>(6, 42));
  for (const int32_t token : answers[2].tokens) EXPECT_NE(token, 42);
  for (size_t i = 1; i < 6; ++i) {
    EXPECT_EQ(answers[3].tokens[i] == 42, answers[3].tokens[i - 1] != 42) << "token " << i;
  }
}

TEST_F(EngineTest, EndsAtEndTokensButNotBeforeMinTokens) {
  Request request = request_of(prompt_, 8);
  request.sampling.logit_bias = {{50, 100.0F}};
  request.sampling.stop_token_ids = {50};
  Request later = request;
  later.sampling.min_tokens = 3;
  const std::vector<Answer> answers = run(engine_, {request, later});
  EXPECT_EQ(answers[0].tokens, (std::vector<int32_t>{50}));
  EXPECT_EQ(answers[0].finished, FinishReason::kStop);
  EXPECT_EQ(answers[0].stop, "50");
  ASSERT_EQ(answers[1].tokens.size(), 4u);
  EXPECT_EQ(answers[1].tokens[3], 50);
}

TEST_F(EngineTest, ARepeatedPromptIsTakenFromTheCache) {
  const Request request = request_of(prompt_, 5);
  const Answer first = run(engine_, {request})[0];
  const Answer second = run(engine_, {request})[0];
  EXPECT_EQ(first.cached_tokens, 0);
  EXPECT_EQ(second.cached_tokens, 8) << "two blocks of four of the ten tokens";
  EXPECT_EQ(first.tokens, second.tokens);
}

TEST_F(EngineTest, AnAbortedRequestEndsAtOnceAndFreesItsBlocks) {
  std::optional<FinishReason> finished;
  size_t tokens = 0;
  const int64_t id = engine_.submit(request_of(prompt_, 30), [&](const RequestOutput& output) {
    tokens += output.tokens.size();
    finished = output.finished;
  });
  for (int i = 0; i < 4; ++i) engine_.step();
  EXPECT_GT(engine_.metrics().cache_usage, 0);
  engine_.abort(id);
  while (engine_.step()) {
  }
  EXPECT_EQ(finished, FinishReason::kAborted);
  EXPECT_LT(tokens, 10u);
  EXPECT_EQ(engine_.metrics().cache_usage, 0);
  engine_.abort(id);  // again, and unknown: nothing happens
  EXPECT_FALSE(engine_.step());
}

TEST_F(EngineTest, RefusesWhatCannotBeDone) {
  const auto code_of = [&](const Request& request) -> std::optional<Code> {
    try {
      engine_.check(request);
    } catch (const Error& error) {
      return error.code();
    }
    return std::nullopt;
  };
  EXPECT_EQ(code_of(request_of({}, 4)), Code::kInvalidArgument);
  EXPECT_EQ(code_of(request_of({96}, 4)), Code::kInvalidArgument);
  EXPECT_EQ(code_of(request_of({-1}, 4)), Code::kInvalidArgument);
  EXPECT_EQ(code_of(request_of(std::vector<int32_t>(48, 3), 4)), Code::kOutOfRange);
  EXPECT_EQ(code_of(request_of(std::vector<int32_t>(47, 3), 4)), std::nullopt);
  Request biased = request_of({1}, 4);
  for (int32_t token = 3; token < 90; ++token) biased.sampling.logit_bias.emplace_back(token, 1.0F);
  EXPECT_EQ(code_of(biased), std::nullopt);
  biased.sampling.bad_words.assign(42, {7});
  EXPECT_EQ(code_of(biased), Code::kInvalidArgument) << "87 and 42 are more than a step takes";
  Request stop = request_of({1}, 4);
  stop.sampling.stop = {"text"};
  EXPECT_EQ(code_of(stop), Code::kNotFound) << "the tiny model has no tokenizer";
}

}  // namespace
}  // namespace ttpu::engine
