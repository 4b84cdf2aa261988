// Through the command itself; one plan with the real TPU compiler.
#include <filesystem>
#include <string>

#include <gtest/gtest.h>

#include "ttpu/base/file.h"
#include "ttpu/base/json.h"
#include "ttpu/base/subprocess.h"
#include "ttpu/pjrt/plugin.h"

#ifdef TTPU_COMMAND
namespace ttpu {
namespace {

const std::string kConfigs = std::string(TTPU_SOURCE_DIR) + "/tests/fixtures/configs/";

SubprocessResult plan(std::vector<std::string> arguments,
                      std::vector<std::pair<std::string, std::string>> environment = {}) {
  arguments.insert(arguments.begin(), {TTPU_COMMAND, "plan"});
  SubprocessOptions options;
  options.environment = std::move(environment);
  return run_subprocess(arguments, options);
}

TEST(PlanCommand, FormulasAloneAnswerWithoutAPlugin) {
  const SubprocessResult result =
      plan({kConfigs + "llama-3-8b.json", "--topology", "v5e:2x4", "--analytic-only", "--json",
            "--price-per-chip-hour", "1.2"},
           {{"TTPU_PLUGIN_PATH", "tpu=/nowhere/libtpu.so"}});
  ASSERT_EQ(result.exit_code, 0) << result.errors;
  const Json json = parse_json(result.output, "plan");
  ASSERT_EQ(json["candidates"].size(), 16U);  // ten meshes, six of them with two strategies
  EXPECT_EQ(json["candidates"][0]["fits"], true);
  EXPECT_GT(json["candidates"][0]["price_per_million_tokens"], 0);
  EXPECT_FALSE(json["explanation"].empty());
}

TEST(PlanCommand, WithoutAPluginItSaysWhatToDo) {
  const SubprocessResult result = plan({kConfigs + "llama-3-8b.json", "--topology", "v5e:2x4"},
                                       {{"TTPU_PLUGIN_PATH", "tpu=/nowhere/libtpu.so"}});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_NE(result.errors.find("--analytic-only"), std::string::npos) << result.errors;
}

TEST(PlanCommand, WeightsAreCountedAsTheyAreQuantized) {
  // One mesh each: all devices share a layer.
  const auto weights = [](const std::string& name, const std::string& topology,
                          const std::string& devices, const std::vector<std::string>& flags) {
    std::vector<std::string> arguments = {
        kConfigs + name, "--topology", topology, "--analytic-only", "--strategy",
        "tensor",        "--tp",       devices,  "--json"};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    const SubprocessResult result = plan(arguments);
    EXPECT_EQ(result.exit_code, 0) << result.errors;
    return parse_json(result.output, "plan")["candidates"][0]["weight_bytes"].get<double>();
  };
  EXPECT_LT(weights("llama-3-8b.json", "v5p:2x2x1", "4", {"--quantization", "int4"}),
            0.5 * weights("llama-3-8b.json", "v5p:2x2x1", "4", {}));
  // DeepSeek-V3's config.json says fp8.
  EXPECT_LT(weights("deepseek-v3.json", "v5p:4x4x4", "64", {}),
            0.6 * weights("deepseek-v3.json", "v5p:4x4x4", "64", {"--weights", "bf16"}));
  const SubprocessResult twice = plan({kConfigs + "deepseek-v3.json", "--topology", "v5p:4x4x4",
                                       "--analytic-only", "--quantization", "int8"});
  EXPECT_EQ(twice.exit_code, 1);
  EXPECT_NE(twice.errors.find("quantized already"), std::string::npos) << twice.errors;
}

TEST(PlanCommand, TrainingIsPlannedByFormulasWithoutAPlugin) {
  const std::vector<std::pair<std::string, std::string>> nowhere = {
      {"TTPU_PLUGIN_PATH", "tpu=/nowhere/libtpu.so"}};
  std::vector<std::string> arguments = {
      kConfigs + "llama-3-8b.json", "--topology", "v6e:2x4", "--task", "train", "--json"};
  EXPECT_NE(plan(arguments, nowhere).errors.find("--analytic-only"), std::string::npos);
  arguments.insert(arguments.end(), {"--analytic-only", "--train-batch-size", "32", "--seq-len",
                                     "2048", "--zero-stage", "3", "--price-per-chip-hour", "2.7"});
  const SubprocessResult result = plan(arguments, nowhere);
  ASSERT_EQ(result.exit_code, 0) << result.errors;
  const Json json = parse_json(result.output, "plan");
  EXPECT_EQ(json["task"], "train");
  for (const Json& row : json["candidates"]) {
    EXPECT_EQ(row["zero_stage"], 3);
    EXPECT_EQ(row["train_batch_size"], 32);
  }
  const Json& best = json["candidates"][0];
  EXPECT_EQ(best["fits"], true);
  EXPECT_GT(best["mfu"], 0.3);
  EXPECT_GT(best["price_per_million_tokens"], 0);
  EXPECT_FALSE(json["explanation"].empty());
}

TEST(PlanCommand, FlagsOfTheOtherTaskAreRefused) {
  const std::string model = kConfigs + "llama-3-8b.json";
  const std::vector<std::vector<std::string>> kTraining = {{"--output-len", "8"},
                                                           {"--max-ttft", "100"},
                                                           {"--batch", "8"},
                                                           {"--quantization", "int8"},
                                                           {"--pp", "2"}};
  const auto refused = [&](std::vector<std::string> arguments, const std::string& task) {
    arguments.insert(arguments.begin(), {model, "--topology", "v6e:2x4", "--task", task});
    const SubprocessResult result = plan(arguments);
    EXPECT_EQ(result.exit_code, 1);
    return result.errors;
  };
  for (const std::vector<std::string>& flag : kTraining) {
    const std::string error = refused(flag, "train");
    EXPECT_NE(error.find("is for --task serve"), std::string::npos) << error;
    EXPECT_NE(error.find("--train-batch-size"), std::string::npos) << error;
  }
  const std::string error = refused({"--remat", "full"}, "serve");
  EXPECT_NE(error.find("--remat is for --task train"), std::string::npos) << error;
  EXPECT_NE(refused({"--strategy", "expert"}, "train").find("sequence and tensor"),
            std::string::npos);
}

TEST(PlanCommand, TargetsThatNothingMeetsEndItWithAnErrorAfterThePlan) {
  const std::vector<std::string> arguments = {kConfigs + "llama-3-8b.json", "--topology", "v5e:2x2",
                                              "--analytic-only", "--json"};
  const auto with = [&](const char* most) {
    std::vector<std::string> all = arguments;
    all.insert(all.end(), {"--max-tpot", most});
    return plan(all);
  };
  EXPECT_EQ(with("40").exit_code, 0);
  const SubprocessResult missed = with("0.001");
  EXPECT_EQ(missed.exit_code, 1);
  EXPECT_NE(missed.errors.find("nothing meets the targets"), std::string::npos) << missed.errors;
  EXPECT_NE(missed.errors.find("ms, not 0.001;"), std::string::npos) << missed.errors;
  EXPECT_FALSE(parse_json(missed.output, "plan")["candidates"].empty());
}

TEST(PlanCommand, ASliceThatIsTooSmallIsAnErrorWithWhatWouldDo) {
  const SubprocessResult result =
      plan({kConfigs + "deepseek-v3.json", "--topology", "v5e:2x4", "--analytic-only"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_EQ(result.output, "");
  EXPECT_NE(result.errors.find("What would do"), std::string::npos) << result.errors;
}

class PlanWithCompiler : public testing::Test {
 protected:
  void SetUp() override {
    for (const pjrt::PluginLocation& location : pjrt::locate_plugins()) {
      if (location.name == "tpu") return;
    }
    GTEST_SKIP() << "needs `ttpu plugin install tpu`";
  }
  const std::string model_ = std::string(TTPU_SOURCE_DIR) + "/tests/fixtures/models/llama";
  std::vector<std::string> arguments_ = {model_,    "--topology",
                                         "v5e:2x2", "--input-len",
                                         "16",      "--output-len",
                                         "16",      "--batch",
                                         "4",       "--tensor-parallel-size",
                                         "4",       "--strategy",
                                         "tensor",  "--json"};
};

TEST_F(PlanWithCompiler, CompilesOnceAndKeepsWhatItLearned) {
  const auto cache = std::filesystem::path(testing::TempDir()) / "plan_cache";
  std::filesystem::remove_all(cache);
  const auto location = pjrt::find_plugin("tpu").string();
  const std::vector<std::pair<std::string, std::string>> environment = {
      {"TTPU_CACHE", cache.string()}, {"TTPU_PLUGIN_PATH", "tpu=" + location}};
  const SubprocessResult first = plan(arguments_, environment);
  ASSERT_EQ(first.exit_code, 0) << first.errors;
  EXPECT_NE(first.errors.find("compiling ..."), std::string::npos) << first.errors;
  const SubprocessResult second = plan(arguments_, environment);
  EXPECT_EQ(second.errors.find("compiling ..."), std::string::npos) << second.errors;
  EXPECT_EQ(second.output, first.output);
  const Json best = parse_json(first.output, "plan")["candidates"][0];
  EXPECT_EQ(best["compiled"], true);
  EXPECT_GT(best["code_bytes"], 0);
  EXPECT_GT(best["tpot_seconds"], 0);
  const Json& schedule = best["decode"]["schedule"];
  EXPECT_GT(schedule["estimate_seconds"], 0);
  EXPECT_GE(schedule["estimate_seconds"], schedule["hbm_limit"]);
  EXPECT_GT(schedule["flops"], 0);
  EXPECT_FALSE(schedule["collectives"].empty());
}

TEST_F(PlanWithCompiler, APipelineIsCompiledAsWellAsOneStage) {
  arguments_ = {model_,    "--topology",
                "v5e:2x2", "--input-len",
                "16",      "--output-len",
                "16",      "--batch",
                "4",       "--pipeline-parallel-size",
                "2",       "--json"};
  const SubprocessResult result = plan(arguments_);
  ASSERT_EQ(result.exit_code, 0) << result.errors;
  const Json best = parse_json(result.output, "plan")["candidates"][0];
  EXPECT_EQ(best["compiled"], true) << best["failure"];
  EXPECT_EQ(best["pipeline_parallel_size"], 2);
  EXPECT_GT(best["tpot_seconds"], 0);
}

TEST_F(PlanWithCompiler, ACompilationThatTakesTooLongIsReported) {
  arguments_.insert(arguments_.end(), {"--timeout", "1", "--no-cache"});
  arguments_[0] = kConfigs + "llama-3-8b.json";
  const SubprocessResult result = plan(arguments_);
  EXPECT_EQ(result.exit_code, 1) << "the plan is by formulas alone";
  EXPECT_NE(result.errors.find("no candidate could be compiled"), std::string::npos);
  const Json json = parse_json(result.output, "plan");
  const Json best = json["candidates"][0];
  EXPECT_EQ(best["compiled"], false);
  EXPECT_NE(best["failure"].get<std::string>().find("--timeout 1 s"), std::string::npos) << best;
  EXPECT_EQ(json["explanation"].back().get<std::string>().find("Not compiled: v5e:2x2 tensor=4"),
            0U)
      << json["explanation"];
}

TEST_F(PlanWithCompiler, WhatIsKeptAndBrokenIsCompiledAgain) {
  const auto cache = std::filesystem::path(testing::TempDir()) / "broken_plan_cache";
  std::filesystem::remove_all(cache);
  const auto location = pjrt::find_plugin("tpu").string();
  const std::vector<std::pair<std::string, std::string>> environment = {
      {"TTPU_CACHE", cache.string()}, {"TTPU_PLUGIN_PATH", "tpu=" + location}};
  ASSERT_EQ(plan(arguments_, environment).exit_code, 0);
  for (const auto& entry : std::filesystem::directory_iterator(cache / "plans")) {
    write_file(entry.path(), "{");
  }
  const SubprocessResult again = plan(arguments_, environment);
  EXPECT_EQ(again.exit_code, 0) << again.errors;
  EXPECT_NE(again.errors.find("compiling ..."), std::string::npos) << again.errors;
  EXPECT_EQ(again.errors.find("kept from before"), std::string::npos) << again.errors;
}

}  // namespace
}  // namespace ttpu
#endif
