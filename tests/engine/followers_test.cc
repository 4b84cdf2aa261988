// Processes that do the steps of another. Threads stand for processes here;
// tests/cli/test_launch_engine.py has processes.
#include "ttpu/engine/followers.h"

#include <future>

#include <gtest/gtest.h>

#include "tests/engine/support/answers.h"
#include "tests/engine/support/faulty_plugin.h"
#include "tests/support/error_of.h"
#include "ttpu/models/registry.h"
#include "ttpu/parallel/control/socket.h"

namespace ttpu::engine {
namespace {

std::filesystem::path model(const std::string& name) {
  return std::filesystem::path(TTPU_SOURCE_DIR) / "tests/fixtures/models" / name;
}

TEST(StepMessages, WhatIsSaidIsHeard) {
  std::vector<std::string> said;
  StepSender sender([&](std::string bytes) { said.push_back(std::move(bytes)); }, 1);
  const StepInputs inputs = {
      3, true, {{2, {1, -2, 3}, {7, -1}, {0.5F, -1e30F}, {0, ~0U}}, {0, {}, {}, {}, {}}}};
  const std::vector<int32_t> prompt = {5, 6, 7}, output = {8};
  const std::vector<BlockCopy> copies = {{0, 4, 5}, {1, 6, 7}};
  sender.launch(inputs);
  sender.finished(output);
  sender.set_history(1, 2, prompt, output);
  sender.copy_blocks(1, copies);
  sender.reset();
  sender.end();
  ASSERT_EQ(said.size(), 5u);
  std::vector<StepMessage> heard;
  for (const std::string& bytes : said) heard.push_back(parse_step_message(bytes));
  EXPECT_EQ(heard[0].kind, StepMessage::Kind::kLaunch);
  EXPECT_EQ(heard[0].inputs, inputs);
  EXPECT_EQ(heard[0].done, StepsDone());
  EXPECT_EQ(heard[1].kind, StepMessage::Kind::kSetHistory);
  EXPECT_EQ(heard[1].replica, 1);
  EXPECT_EQ(heard[1].slot, 2);
  EXPECT_EQ(heard[1].prompt, prompt);
  EXPECT_EQ(heard[1].output, output);
  EXPECT_EQ(heard[2].kind, StepMessage::Kind::kCopyBlocks);
  ASSERT_EQ(heard[2].copies.size(), 2u);
  EXPECT_EQ(heard[2].copies[1].group, 1);
  EXPECT_EQ(heard[2].copies[1].to, 7);
  EXPECT_EQ(heard[3].kind, StepMessage::Kind::kReset);
  EXPECT_EQ(heard[4].kind, StepMessage::Kind::kEnd);
  StepsDone one;
  one.add(output);
  for (size_t i = 1; i < heard.size(); ++i) EXPECT_EQ(heard[i].done, one);
  for (const StepMessage& message : heard) EXPECT_EQ(message.runner, 1);
}

TEST(StepMessages, WhatIsCutOffOrLongerIsRefused) {
  std::vector<std::string> said;
  StepSender sender([&](std::string bytes) { said.push_back(std::move(bytes)); }, 0);
  sender.launch({0, false, {{1, {1, 2, 3}, {}, {}, {}}}});
  sender.copy_blocks(0, std::vector<BlockCopy>{{0, 1, 2}});
  for (const std::string& bytes : said) {
    for (size_t size = 0; size < bytes.size(); ++size) {
      error_of([&] { parse_step_message(bytes.substr(0, size)); }, Code::kDataLoss);
    }
    error_of([&] { parse_step_message(bytes + "x"); }, Code::kDataLoss);
  }
  std::string huge = said[1];
  huge.replace(huge.size() - 24, 8, std::string(8, '\xff'));  // the number of copies
  error_of([&] { parse_step_message(huge); }, Code::kDataLoss);
}

// A runner and one that follows it, behind the plugin that can be told to damage transfers.
class RunnerFollowerTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { load_faulty_plugin("faulty_damage", &damage); }

  std::unique_ptr<Runner> make_runner(std::shared_ptr<StepSender> sender) {
    const nn::DecoderSpec spec =
        models::decoder_from_config(io::load_model_files(model("llama")).config);
    RunnerOptions options;
    options.device = FAULTY_PLUGIN;
    options.dtype = DType::kF32;
    options.shape.block_size = 16;
    options.shape.blocks_per_sequence = 4;
    options.shape.cache_dtype = DType::kF32;
    options.shape.top_logprobs = 4;
    options.shape.group_blocks = {8};
    options.buckets = {{1, 1, 1}, {8, 1, 1}};
    options.sender = std::move(sender);
    return std::make_unique<Runner>(spec, model("llama"), options);
  }

  // Tokens of a sequence from `first` on, of which the last is followed by a new one.
  void launch(int64_t first, int64_t count) {
    const Scheduled item{&sequence, first, count, true, 0};
    Row row;
    row.token = count - 1;
    row.slot = 0;
    row.sampling = &sampling;
    leader->launch(std::span(&item, 1), std::span(&row, 1), false);
  }
  // The leader's next step does.
  void fail(int64_t first, int64_t count) {
    damage(1);
    EXPECT_THROW(
        {
          launch(first, count);  // or here
          leader->finish();
        },
        Error);
  }
  void replay() {
    for (const std::string& bytes : std::exchange(said, {})) {
      follower.apply(parse_step_message(bytes));
    }
  }

  static inline void (*damage)(int) = nullptr;
  Sequence sequence = [] {
    Sequence made;
    made.slot = 0;
    made.tokens = {5, 6, 7, 8};
    made.blocks = {{0, 1, 2, 3}};
    return made;
  }();
  SamplingParams sampling = {.temperature = 0.9, .repetition_penalty = 1.3, .seed = 3};
  std::vector<std::string> said;
  std::shared_ptr<StepSender> sender =
      std::make_shared<StepSender>([this](std::string bytes) { said.push_back(bytes); }, 0);
  std::unique_ptr<Runner> leader = make_runner(sender);
  std::unique_ptr<Runner> own = make_runner(nullptr);
  RunnerFollower follower{*own};
};

TEST_F(RunnerFollowerTest, DoesAllThatWasDoneWithTwoStepsInFlight) {
  leader->set_history(0, 0, sequence.tokens, {});
  launch(0, 4);
  for (int64_t i = 4; i < 10; ++i) {
    launch(i, 1);
    leader->finish();
  }
  const std::vector<BlockCopy> copies = {{0, 0, 4}};
  leader->copy_blocks(0, copies);
  sequence.blocks = {{4, 1, 2, 3}};
  launch(10, 1);
  replay();
  EXPECT_EQ(own->in_flight(), leader->in_flight());
  leader->finish();
  leader->finish();
  sender->end();
  replay();
  EXPECT_EQ(follower.steps(), 8);
}

TEST_F(RunnerFollowerTest, AStepThatFailsOnTheLeaderIsForgotten) {
  launch(0, 4);
  leader->finish();
  fail(4, 1);
  leader->reset();
  launch(0, 4);
  leader->finish();
  sender->end();
  replay();
  EXPECT_EQ(follower.steps(), 2);
}

TEST_F(RunnerFollowerTest, AStepThatFailsOnBothIsForgotten) {
  fail(0, 4);
  damage(1);
  replay();
  leader->reset();
  launch(0, 4);
  leader->finish();
  sender->end();
  replay();
  EXPECT_EQ(follower.steps(), 1);
}

TEST_F(RunnerFollowerTest, AStepThatFailsHereAloneIsAnError) {
  launch(0, 4);
  leader->finish();
  sender->end();
  damage(1);
  try {
    replay();
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("[attention]"), std::string::npos) << error.what();
  }
}

TEST_F(RunnerFollowerTest, OtherTokensAreNoticed) {
  launch(0, 4);
  leader->finish();
  replay();
  sender->end();
  StepMessage last = parse_step_message(said.front());
  last.done.digest ^= 1;
  const std::string why = error_of([&] { follower.apply(last); }, Code::kDataLoss);
  EXPECT_NE(why.find("tokens of 1 steps"), std::string::npos) << why;
}

TEST_F(RunnerFollowerTest, InputsOfOtherProgramsAreRefused) {
  launch(0, 4);
  const StepInputs right = parse_step_message(said.front()).inputs;
  const auto refused = [&](const std::function<void(StepInputs&)>& change) {
    StepInputs wrong = right;
    change(wrong);
    error_of([&] { own->launch(wrong); }, Code::kInvalidArgument);
  };
  refused([](StepInputs& inputs) { inputs.program = 2; });
  refused([](StepInputs& inputs) { inputs.program = -1; });
  refused([](StepInputs& inputs) { inputs.program = 0; });
  refused([](StepInputs& inputs) { inputs.replicas.emplace_back(); });
  refused([](StepInputs& inputs) { inputs.replicas[0].rows = 2; });
  refused([](StepInputs& inputs) { inputs.replicas[0].bias_tokens = {1}; });
  refused([](StepInputs& inputs) { inputs.replicas[0].allowed = {1}; });
  own->launch(right);
  own->finish();
  leader->finish();
}

parallel::ControlOptions control_options(int process, const std::string& coordinator) {
  parallel::ControlOptions options;
  options.coordinator = coordinator;
  options.process = process;
  options.processes = 2;
  options.hosts = {"host-0", "host-1"};
  options.job = "test";
  return options;
}

// Both at once; what process 0 and process 1 throw comes out of get().
struct TwoProcesses {
  using Body = std::function<void(std::shared_ptr<parallel::ControlPlane>)>;
  TwoProcesses(const Body& leader, const Body& follower) {
    const std::string coordinator = "127.0.0.1:" + std::to_string(parallel::free_ports(1));
    const auto start = [&](int process, const Body& body) {
      return std::async(std::launch::async, [=] {
        body(std::make_shared<parallel::ControlPlane>(control_options(process, coordinator)));
      });
    };
    first = start(0, leader);
    second = start(1, follower);
    first.wait();
    second.wait();
  }
  std::future<void> first, second;
};

void expect_the_same_answers(EngineOptions options) {
  std::vector<std::vector<int32_t>> alone;
  {
    Engine engine(model("llama"), options);
    alone = answers(engine);
  }
  int64_t steps = 0;
  int64_t followed = 0;
  const auto with = [&](std::shared_ptr<parallel::ControlPlane> control) {
    EngineOptions all = options;
    all.control = std::move(control);
    return all;
  };
  TwoProcesses both(
      [&](const auto& control) {
        Engine engine(model("llama"), with(control));
        EXPECT_TRUE(engine.leads() && !engine.follows());
        EXPECT_EQ(answers(engine), alone);
        steps = engine.metrics().steps;
      },
      [&](const auto& control) {
        Engine engine(model("llama"), with(control));
        EXPECT_TRUE(engine.follows() && !engine.leads());
        followed = engine.follow();
      });
  both.first.get();
  both.second.get();
  EXPECT_GT(steps, 0);
  EXPECT_EQ(followed, steps);
}

TEST(Followers, AnswersAreThoseOfOneProcess) { expect_the_same_answers(small_options({})); }

TEST(Followers, EveryProcessMayHaveManyDevices) {
  expect_the_same_answers(small_options({2, 2, false, ""}));
}

TEST(Followers, ADraftModelIsFollowedToo) {
  EngineOptions options = small_options({});
  options.speculation.num_speculative_tokens = 3;
  options.speculation.model = model("llama");
  expect_the_same_answers(options);
}

// What both say who are to run one engine and have not the same.
void expect_refused(const std::string& other_model,
                    const std::function<void(EngineOptions&)>& change, const std::string& what) {
  TwoProcesses both(
      [&](const auto& control) {
        EngineOptions options = small_options({});
        options.control = control;
        Engine engine(model("llama"), options);
      },
      [&](const auto& control) {
        EngineOptions options = small_options({});
        options.control = control;
        change(options);
        Engine engine(model(other_model), options);
      });
  const std::string first = error_of([&] { both.first.get(); }, Code::kFailedPrecondition);
  const std::string second = error_of([&] { both.second.get(); }, Code::kFailedPrecondition);
  for (const std::string& why : {first, second}) {
    for (const std::string& part :
         {what, std::string("(host-0) has"), std::string("(host-1) has")}) {
      EXPECT_NE(why.find(part), std::string::npos) << why;
    }
  }
}

TEST(Followers, OtherOptionsAreRefusedWithBothValues) {
  expect_refused(
      "llama", [](EngineOptions& options) { options.max_num_seqs = 3; },
      "max-num-seqs is not the same: ");
  expect_refused(
      "llama", [](EngineOptions& options) { options.num_blocks = 9; },
      "num-blocks is not the same: ");
}

TEST(Followers, AnotherModelIsRefusedWithBothValues) {
  expect_refused(
      "llama_bias", [](EngineOptions&) {}, "config.json is not the same: ");
}

TEST(Followers, ALostFollowerEndsTheRequestsOfTheLeader) {
  TwoProcesses both(
      [&](const auto& control) {
        EngineOptions options = small_options({});
        options.control = control;
        Engine engine(model("llama"), options);
        Request request;
        request.prompt = {5, 6, 7};
        request.sampling.max_tokens = 20;
        request.sampling.ignore_eos = true;
        engine.submit(request, [](const RequestOutput&) {});
        while (true) engine.step();
      },
      [&](const auto& control) {
        EngineOptions options = small_options({});
        options.control = control;
        Engine engine(model("llama"), options);
        control->give_up("no power");
      });
  const std::string error = error_of([&] { both.first.get(); }, Code::kUnavailable);
  EXPECT_NE(error.find("process 1 (host-1) gave up: no power"), std::string::npos) << error;
}

}  // namespace
}  // namespace ttpu::engine
