// Files of prompts to files of answers, and going on where one ended.
#include "ttpu/engine/offline.h"

#include <fstream>
#include <map>

#include <gtest/gtest.h>

#include "ttpu/base/error.h"
#include "ttpu/base/file.h"

namespace ttpu::engine {
namespace {

class OfflineTest : public testing::Test {
 protected:
  OfflineTest()
      : output_(std::filesystem::path(testing::TempDir()) /
                (std::string(testing::UnitTest::GetInstance()->current_test_info()->name()) +
                 ".jsonl")) {
    std::filesystem::remove(output_);
  }
  ~OfflineTest() override { std::filesystem::remove(output_); }

  static EngineOptions options() {
    EngineOptions options;
    options.dtype = DType::kF32;
    options.max_model_len = 48;
    options.max_num_seqs = 2;
    options.max_num_batched_tokens = 16;
    return options;
  }

  OfflineSummary run(const std::vector<Json>& items) {
    OfflineJob job{items, {}, false, output_};
    job.sampling.max_tokens = 3;
    job.sampling.ignore_eos = true;
    return run_offline(engine_, job, [](const OfflineSummary&) {});
  }

  // By index; fails where one has two lines.
  std::map<size_t, Json> lines() const {
    std::map<size_t, Json> found;
    for (const Json& line : read_jsonl(output_)) {
      EXPECT_TRUE(found.emplace(line["index"].get<size_t>(), line).second) << line.dump();
    }
    return found;
  }

  Engine engine_{std::filesystem::path(TTPU_SOURCE_DIR) / "tests/fixtures/models/llama", options()};
  std::filesystem::path output_;
  const Json good_ = {{"prompt_token_ids", {5, 6, 7}}};
  const Json bad_ = {{"prompt_token_ids", {5, 4000}}};
};

TEST_F(OfflineTest, AnItemThatFailedKeepsOneLineHoweverOftenItIsRun) {
  const OfflineSummary first = run({good_, bad_, good_});
  EXPECT_EQ(first.answered, 2);
  EXPECT_EQ(first.failed, 1);
  const OfflineSummary second = run({good_, bad_, good_});
  EXPECT_EQ(second.kept, 2);
  EXPECT_EQ(second.answered, 0);
  EXPECT_EQ(second.failed, 1);
  const auto found = lines();
  ASSERT_EQ(found.size(), 3u);
  EXPECT_TRUE(found.at(1).contains("error"));
}

TEST_F(OfflineTest, AnItemThatFailedIsAskedAgain) {
  run({bad_, good_});
  const OfflineSummary second = run({good_, good_});
  EXPECT_EQ(second.kept, 1);
  EXPECT_EQ(second.answered, 1);
  EXPECT_EQ(second.failed, 0);
  const auto found = lines();
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found.at(0)["token_ids"], found.at(1)["token_ids"]);
}

TEST_F(OfflineTest, ALineThatWasCutOffIsAnsweredAgain) {
  run({good_, good_, good_});
  const std::string whole = read_file(output_);
  std::filesystem::resize_file(output_, whole.size() - 10);
  const OfflineSummary second = run({good_, good_, good_});
  EXPECT_EQ(second.kept, 2);
  EXPECT_EQ(second.answered, 1);
  EXPECT_EQ(lines().size(), 3u);
}

TEST_F(OfflineTest, AnOutputOfSomethingElseIsRefusedAndLeftAlone) {
  std::ofstream(output_) << "{\"index\": 7}\n";
  EXPECT_THROW(run({good_}), Error);
  EXPECT_EQ(read_file(output_), "{\"index\": 7}\n");
}

}  // namespace
}  // namespace ttpu::engine
