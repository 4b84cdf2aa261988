// Through the command itself, with the real TPU compiler.
#include <filesystem>
#include <fstream>
#include <string>
#include <tuple>

#include <gtest/gtest.h>

#include "ttpu/base/json.h"
#include "ttpu/base/subprocess.h"
#include "ttpu/pjrt/plugin.h"

#ifdef TTPU_COMMAND
namespace ttpu {
namespace {

const std::string kModel = std::string(TTPU_SOURCE_DIR) + "/tests/fixtures/models/llama";

bool has_tpu_compiler() {
  for (const pjrt::PluginLocation& location : pjrt::locate_plugins()) {
    if (location.name == "tpu") return true;
  }
  return false;
}

class CompileCommand : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (!has_tpu_compiler()) GTEST_SKIP() << "needs `ttpu plugin install tpu`";
  }
};

SubprocessResult compile(const std::string& model, const std::string& topology,
                         const std::string& cache = "auto") {
  return run_subprocess({TTPU_COMMAND, "compile", model, "--topology", topology, "--json",
                         "--max-model-len", "64", "--prefill-tokens", "32", "--kv-cache-dtype",
                         cache});
}

TEST_P(CompileCommand, TellsMemoryAndCostOfBothPrograms) {
  const SubprocessResult result = compile(kModel, GetParam());
  ASSERT_EQ(result.exit_code, 0) << result.errors;
  const Json report = parse_json(result.output, "report");
  for (const char* phase : {"prefill", "decode"}) {
    ASSERT_TRUE(report.contains(phase)) << report;
    const Json& program = report[phase];
    EXPECT_EQ(program["devices"], 4);
    EXPECT_GT(program["weight_bytes"], 0);
    EXPECT_GT(program["cache_written_bytes"], 0);
    EXPECT_GT(program["code_bytes"], 0);
    EXPECT_GT(program["ici_bytes"], 0);
    EXPECT_GT(program["step_seconds"], 0);
    EXPECT_LT(program["total_bytes"], program["hbm_bytes"]);
  }
  EXPECT_GT(report["prefill"]["flops"], report["decode"]["flops"]);
}

TEST_P(CompileCommand, TheScheduledProgramsCanBePricedAgain) {
  const std::filesystem::path folder =
      std::filesystem::path(testing::TempDir()) / (std::string("hlo_") + GetParam());
  std::filesystem::remove_all(folder);
  const SubprocessResult made = run_subprocess(
      {TTPU_COMMAND, "compile", kModel, "--topology", GetParam(), "--json", "--max-model-len", "64",
       "--prefill-tokens", "32", "--save-hlo", folder.string()});
  ASSERT_EQ(made.exit_code, 0) << made.errors;
  const Json report = parse_json(made.output, "report");
  for (const std::string phase : {"prefill", "decode"}) {
    const SubprocessResult priced =
        run_subprocess({TTPU_COMMAND, "plan", "--hlo", (folder / (phase + ".hlo.pb")).string(),
                        "--topology", GetParam(), "--json"});
    ASSERT_EQ(priced.exit_code, 0) << priced.errors;
    EXPECT_EQ(parse_json(priced.output, "cost"), report[phase]["schedule"]);
  }
}

TEST_P(CompileCommand, TheCacheHasTheTypeThatWasAskedFor) {
  const auto cache_bytes = [](const SubprocessResult& result) {
    return parse_json(result.output, "report")["decode"]["cache_bytes"].get<int64_t>();
  };
  const int64_t wide = cache_bytes(compile(kModel, GetParam()));
  EXPECT_EQ(cache_bytes(compile(kModel, GetParam(), "fp8")) * 2, wide);
}
INSTANTIATE_TEST_SUITE_P(Topologies, CompileCommand, testing::Values("v5e:2x2", "v6e:2x2"),
                         [](const auto& test) { return std::string(test.param).substr(0, 3); });

class CompileCommandOnce : public testing::Test {
 protected:
  void SetUp() override {
    if (!has_tpu_compiler()) GTEST_SKIP() << "needs `ttpu plugin install tpu`";
  }
};

// What the chip's units of low precision get, and what weights take.
TEST_F(CompileCommandOnce, QuantizedLayersAreProductsOfSmallNumbersInTheCompiledProgram) {
  // Embedding (its rows filled up to 128), head [96, 32] and five norms stay bf16; of the numbers
  // of two layers each is a byte, and their rows have an f32.
  constexpr int64_t kMlp = 4096;  // as many rows of gate and up as rounding pays for
  constexpr int64_t kNumbers = 2 * (3 * kMlp + 192) * 32;
  constexpr int64_t kRows = 2 * (2 * kMlp + 192);
  constexpr int64_t kBytes = 2 * (96 * (128 + 32) + 5 * 32) + kNumbers + 4 * kRows;
  constexpr double kProducts = 2.0 * 256 * 2 * (2 * kMlp * 32);
  Json config = read_json(kModel + "/config.json");
  config["max_position_embeddings"] = 256;
  config["intermediate_size"] = kMlp;
  const std::string path = testing::TempDir() + "/llama_256.json";
  std::ofstream(path) << config;
  for (const auto& [topology, form, kind] :
       {std::tuple("v5e:1x1", "int8", "int8_ops"), std::tuple("v6e:1x1", "fp8", "fp8_flops")}) {
    const SubprocessResult result = run_subprocess(
        {TTPU_COMMAND, "compile", path, "--topology", topology, "--json", "--max-model-len", "256",
         "--prefill-tokens", "256", "--quantization", form});
    ASSERT_EQ(result.exit_code, 0) << result.errors;
    const Json program = parse_json(result.output, "report")["prefill"];
    EXPECT_EQ(program["weight_bytes"], kBytes) << form;
    EXPECT_EQ(program[kind], kProducts) << form;
    EXPECT_GE(program["schedule"][kind], kProducts) << form;
  }
}

// A layer of fp8 in blocks: a step reads about its bytes, and writes neither scales nor numbers
// out.
TEST_F(CompileCommandOnce, BlocksAreReadAsTheyAreStored) {
  Json config = read_json(std::string(TTPU_SOURCE_DIR) + "/tests/fixtures/configs/llama-3-8b.json");
  config["num_hidden_layers"] = 1;
  config["vocab_size"] = 1024;
  config["quantization_config"] = {{"quant_method", "fp8"}, {"weight_block_size", {128, 128}}};
  const std::string path = testing::TempDir() + "/fp8_blocks.json";
  std::ofstream(path) << config;
  const SubprocessResult result = compile(path, "v5e:1x1");
  ASSERT_EQ(result.exit_code, 0) << result.errors;
  const Json report = parse_json(result.output, "report");
  for (const char* phase : {"prefill", "decode"}) {
    const Json& program = report[phase];
    EXPECT_LT(program["schedule"]["hbm_bytes"].get<double>(),
              1.4 * program["weight_read_bytes"].get<double>())
        << phase;
  }
}

// Four bits with scales of groups, whose number is no multiple of eight in the last product: their
// numbers are made where products read them.
TEST_F(CompileCommandOnce, GroupsAreReadAsTheyAreStored) {
  const std::string path = testing::TempDir() + "/int4_groups.json";
  Json config = read_json(std::string(TTPU_SOURCE_DIR) + "/tests/fixtures/configs/llama-3-8b.json");
  config["num_hidden_layers"] = 1;
  config["vocab_size"] = 1024;
  config["intermediate_size"] = 12 * 128;
  config["quantization_config"] = {
      {"quant_method", "awq"}, {"bits", 4}, {"group_size", 128}, {"version", "gemm"}};
  std::ofstream(path) << config;
  const SubprocessResult result = compile(path, "v5e:1x1");
  ASSERT_EQ(result.exit_code, 0) << result.errors;
  const Json decode = parse_json(result.output, "report")["decode"];
  const double bytes = decode["weight_read_bytes"].get<double>();
  EXPECT_LT(decode["schedule"]["hbm_bytes"].get<double>(), 1.4 * bytes);
  EXPECT_LT(decode["schedule"]["cycle_seconds"].get<double>(), 5 * bytes / 819e9);
}

// GPT-OSS's experts take four bits and a scale of two bytes for each 32 numbers.
TEST_F(CompileCommandOnce, ExpertsOfMxfp4AreReadAsTheyAreStored) {
  const std::string path = testing::TempDir() + "/mxfp4.json";
  Json config =
      read_json(std::string(TTPU_SOURCE_DIR) + "/tests/fixtures/configs/gpt-oss-20b.json");
  config["num_hidden_layers"] = 1;
  config["layer_types"] = {"full_attention"};
  config["num_local_experts"] = 4;
  config["vocab_size"] = 1024;
  const auto decode = [&] {
    std::ofstream(path) << config;
    const SubprocessResult result = compile(path, "v5e:1x1");
    EXPECT_EQ(result.exit_code, 0) << result.errors;
    return result.exit_code == 0 ? parse_json(result.output, "report")["decode"] : Json();
  };
  const Json small = decode();
  config.erase("quantization_config");
  const Json wide = decode();
  ASSERT_TRUE(small.is_object() && wide.is_object());
  constexpr int64_t kNumbers = int64_t{4} * 3 * 2880 * 2880;
  EXPECT_EQ(wide["weight_bytes"].get<int64_t>() - small["weight_bytes"].get<int64_t>(),
            2 * kNumbers - kNumbers / 2 - 2 * kNumbers / 32);
  EXPECT_LT(small["schedule"]["hbm_bytes"].get<double>(),
            wide["schedule"]["hbm_bytes"].get<double>() / 2);
}

// Two heads of keys on four devices: what is divided by heads, and not by rows, in the loop too.
TEST_F(CompileCommandOnce, ScannedLayersAreDividedAsUnrolledOnes) {
  const auto weights_of = [](const char* layers) -> int64_t {
    const SubprocessResult result =
        run_subprocess({TTPU_COMMAND, "compile", kModel, "--topology", "v5e:2x2", "--json",
                        "--max-model-len", "64", "--prefill-tokens", "32", "--layers", layers});
    EXPECT_EQ(result.exit_code, 0) << result.errors;
    if (result.exit_code != 0) return 0;
    return parse_json(result.output, "report")["decode"]["weight_bytes"].get<int64_t>();
  };
  EXPECT_EQ(weights_of("scanned"), weights_of("unrolled"));
}

TEST_F(CompileCommandOnce, AnImpossibleTopologyIsExplained) {
  const SubprocessResult result = compile(kModel, "v5e:3x5x7");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_EQ(result.output, "");
  EXPECT_NE(result.errors.find("v5e:3x5x7"), std::string::npos) << result.errors;
  EXPECT_NE(result.errors.find("CHIP:SHAPE"), std::string::npos) << result.errors;
}

TEST_F(CompileCommandOnce, AModelThatDoesNotFitSaysWhatItNeedsAndWhatWouldDo) {
  const std::string config =
      std::string(TTPU_SOURCE_DIR) + "/tests/fixtures/configs/llama-3.1-70b.json";
  const SubprocessResult result = compile(config, "v5e:2x2");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_NE(result.errors.find("does not fit"), std::string::npos) << result.errors;
  EXPECT_NE(result.errors.find("By formulas these would do: "), std::string::npos) << result.errors;
  EXPECT_NE(result.errors.find("v5p:2x2x1 (tensor=4)"), std::string::npos) << result.errors;
}

TEST(CompileCommandWithoutPlugin, IsAnError) {
  const auto empty = std::filesystem::path(testing::TempDir()) / "no_plugins";
  std::filesystem::create_directories(empty);
  SubprocessOptions options;
  options.environment = {{"TTPU_PLUGIN_PATH", "tpu=" + (empty / "libtpu.so").string()}};
  const SubprocessResult result =
      run_subprocess({TTPU_COMMAND, "compile", kModel, "--topology", "v5e:2x2"}, options);
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_NE(result.errors.find("tpu"), std::string::npos) << result.errors;
}

}  // namespace
}  // namespace ttpu
#endif
