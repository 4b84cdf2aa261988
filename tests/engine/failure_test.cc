// A step that the plugin fails. The plugin is the real one behind tests/engine/faulty_plugin.cc,
// which damages what is sent to the device: the attention kernel finds pages that do not exist, and
// the step fails as any step does whose kernel fails.
#include <gtest/gtest.h>

#include "tests/engine/support/faulty_plugin.h"
#include "ttpu/engine/generator.h"

namespace ttpu::engine {
namespace {

class FailureTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { load_faulty_plugin("faulty_damage", &damage); }

  static EngineOptions options() {
    EngineOptions options;
    options.device = FAULTY_PLUGIN;
    options.dtype = DType::kF32;
    options.max_model_len = 48;
    options.block_size = 4;
    options.max_num_seqs = 2;
    options.max_num_batched_tokens = 16;
    return options;
  }

  struct Answer {
    std::vector<int32_t> tokens;
    std::optional<FinishReason> finished;
    std::string error;
  };
  void submit(std::vector<int32_t> prompt, Answer& answer) {
    Request request;
    request.prompt = std::move(prompt);
    request.sampling.max_tokens = 12;
    request.sampling.ignore_eos = true;
    engine_.submit(request, [&answer](const RequestOutput& output) {
      answer.tokens.insert(answer.tokens.end(), output.tokens.begin(), output.tokens.end());
      answer.finished = output.finished;
      answer.error = output.error;
    });
  }
  void run() {
    int64_t steps = 0;
    while (engine_.step()) ASSERT_LT(++steps, 1000);
    EXPECT_EQ(engine_.metrics().cache_usage, 0);
  }

  static inline void (*damage)(int) = nullptr;
  Engine engine_{std::filesystem::path(TTPU_SOURCE_DIR) / "tests/fixtures/models/llama", options()};
};

TEST_F(FailureTest, AFailedStepEndsTheRequestsThatItTouchesAndTheOthersGoOn) {
  Answer alone;
  submit({5, 6, 7, 8, 9, 10}, alone);
  run();
  ASSERT_EQ(alone.tokens.size(), 12u);
  Answer first, second, waiting;
  submit({5, 6, 7, 8, 9, 10}, first);
  submit({11, 12}, second);
  submit({5, 6, 7, 8, 9, 10}, waiting);  // two run at once
  for (int i = 0; i < 3; ++i) engine_.step();
  damage(1);
  run();
  for (const Answer* touched : {&first, &second}) {
    EXPECT_EQ(touched->finished, FinishReason::kError);
    EXPECT_NE(touched->error.find("a step has failed"), std::string::npos) << touched->error;
    EXPECT_NE(touched->error.find("[attention]"), std::string::npos) << touched->error;
    EXPECT_LT(touched->tokens.size(), 12u);
  }
  EXPECT_EQ(waiting.finished, FinishReason::kLength);
  EXPECT_EQ(waiting.tokens, alone.tokens) << "nothing is taken from a cache that is lost";
  EXPECT_EQ(engine_.metrics().failed_steps, 1);
}

TEST_F(FailureTest, AnEngineWhoseEveryStepFailsEndsAllRequests) {
  std::vector<Answer> answers(5);
  damage(1 << 20);
  for (Answer& answer : answers) submit({5, 6, 7}, answer);
  run();
  damage(0);
  for (const Answer& answer : answers) EXPECT_EQ(answer.finished, FinishReason::kError);
  Answer after;
  submit({5, 6, 7}, after);
  run();
  EXPECT_EQ(after.finished, FinishReason::kLength);
}

}  // namespace
}  // namespace ttpu::engine
