// `ttpu compile --task train`, with the real TPU compiler.
#include <algorithm>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "ttpu/base/json.h"
#include "ttpu/base/subprocess.h"
#include "ttpu/pjrt/plugin.h"

#ifdef TTPU_COMMAND
namespace ttpu {
namespace {

SubprocessResult compile(const std::string& model, const std::vector<std::string>& more) {
  std::vector<std::string> command = {
      TTPU_COMMAND, "compile", std::string(TTPU_SOURCE_DIR) + "/tests/fixtures/models/" + model,
      "--task",     "train",   "--json"};
  if (std::find(more.begin(), more.end(), "--seq-len") == more.end()) {
    command.insert(command.end(), {"--seq-len", "64"});
  }
  command.insert(command.end(), more.begin(), more.end());
  return run_subprocess(command);
}

class CompileTraining : public testing::Test {
 protected:
  void SetUp() override {
    for (const pjrt::PluginLocation& location : pjrt::locate_plugins()) {
      if (location.name == "tpu") return;
    }
    GTEST_SKIP() << "needs `ttpu plugin install tpu`";
  }
};

Json step_of(const SubprocessResult& result) {
  EXPECT_EQ(result.exit_code, 0) << result.errors;
  return parse_json(result.output, "report")["train"];
}

TEST_F(CompileTraining, TheStateIsDividedAndGatheredByLayer) {
  const auto step = [](const char* stage) {
    return step_of(compile("qwen3", {"--topology", "v6e:2x2", "--zero-stage", stage}));
  };
  const Json whole = step("0");
  const Json divided = step("3");
  for (const Json& one : {whole, divided}) {
    EXPECT_EQ(one["devices"], 4);
    EXPECT_EQ(one["tokens"], 4 * 64);
    EXPECT_EQ(one["optimizer_bytes"], 2 * one["weight_bytes"].get<int64_t>());
    EXPECT_GT(one["schedule"]["estimate_seconds"], 0);
  }
  EXPECT_NEAR(divided["weight_bytes"].get<double>(), whole["weight_bytes"].get<double>() / 4,
              0.05 * whole["weight_bytes"].get<double>());
  const auto count = [](const Json& one, const std::string& opcode) {
    double sum = 0;
    for (const Json& collective : one["schedule"]["collectives"]) {
      if (collective["opcode"] == opcode) sum += collective["count"].get<double>();
    }
    return sum;
  };
  EXPECT_EQ(count(whole, "all-gather"), 0);
  EXPECT_GT(count(divided, "all-gather"), 2);
}

TEST_F(CompileTraining, LayersAreSharedByDevicesAndMicroBatchesAccumulate) {
  const Json one = step_of(
      compile("gemma3_text", {"--topology", "v5e:2x2", "--tensor-parallel-size", "2", "--fsdp-size",
                              "2", "--micro-batch-size", "2", "--remat", "minimal"}));
  const Json four =
      step_of(compile("gemma3_text", {"--topology", "v5e:2x2", "--tensor-parallel-size", "2",
                                      "--fsdp-size", "2", "--micro-batch-size", "2", "--remat",
                                      "minimal", "--train-batch-size", "16"}));
  EXPECT_EQ(one["sequences"], 4);
  EXPECT_EQ(four["sequences"], 16);
  EXPECT_GT(four["schedule"]["estimate_seconds"].get<double>(),
            2 * one["schedule"]["estimate_seconds"].get<double>());
}

TEST_F(CompileTraining, ThePlanCompilesTheBest) {
  const SubprocessResult result = run_subprocess(
      {TTPU_COMMAND, "plan", std::string(TTPU_SOURCE_DIR) + "/tests/fixtures/models/llama",
       "--topology", "v6e:2x2", "--task", "train", "--seq-len", "64", "--train-batch-size", "8",
       "--zero-stage", "3", "--fsdp-size", "4", "--compile", "1", "--no-cache", "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.errors;
  const Json best = parse_json(result.output, "plan")["candidates"].at(0);
  EXPECT_EQ(best["compiled"], true) << best;
  EXPECT_EQ(best["fits"], true);
  EXPECT_EQ(best["fsdp_size"], 4);
  EXPECT_GT(best["tokens_per_second"], 0);
}

TEST_F(CompileTraining, WhatDoesNotDivideIsExplained) {
  const SubprocessResult mesh = compile("llama", {"--topology", "v5e:2x2", "--fsdp-size", "3"});
  EXPECT_EQ(mesh.exit_code, 1);
  EXPECT_NE(mesh.errors.find("make 3 devices, v5e:2x2 has 4"), std::string::npos) << mesh.errors;
  const SubprocessResult batch =
      compile("llama", {"--topology", "v5e:2x2", "--train-batch-size", "6"});
  EXPECT_EQ(batch.exit_code, 1);
  EXPECT_NE(batch.errors.find("give a multiple of 4"), std::string::npos) << batch.errors;
  const SubprocessResult length = compile("llama", {"--topology", "v5e:2x2", "--seq-len", "9999"});
  EXPECT_EQ(length.exit_code, 1);
  EXPECT_NE(length.errors.find("lower --seq-len"), std::string::npos) << length.errors;
  const SubprocessResult strategy =
      compile("llama", {"--topology", "v5e:2x2", "--strategy", "context"});
  EXPECT_EQ(strategy.exit_code, 1);
  EXPECT_NE(strategy.errors.find("give tensor or sequence"), std::string::npos) << strategy.errors;
}

}  // namespace
}  // namespace ttpu
#endif
