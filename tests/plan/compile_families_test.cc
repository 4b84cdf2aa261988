// Every family with the real compilers: that for TPU, the chips in turn, and that for GPU, one and
// four devices in turn. benchmarks/compile_matrix.py goes through all pairs.
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "ttpu/base/json.h"
#include "ttpu/base/subprocess.h"
#include "ttpu/pjrt/plugin.h"
#include "ttpu/plan/gpus.h"

#ifdef TTPU_COMMAND
namespace ttpu {
namespace {

struct Case {
  std::string model;
  std::string topology;
};

// The first tiny model of each model_type.
std::vector<Case> cases() {
  const std::filesystem::path models =
      std::filesystem::path(TTPU_SOURCE_DIR) / "tests/fixtures/models";
  std::map<std::string, std::string> first;
  for (const auto& entry : std::filesystem::directory_iterator(models)) {
    if (!std::filesystem::exists(entry.path() / "config.json")) continue;
    const std::string name = entry.path().filename().string();
    const Json config = read_json(entry.path() / "config.json");
    std::string& known = first[config.at("model_type").get<std::string>()];
    if (known.empty() || name < known) known = name;
  }
  static constexpr const char* kTpus[] = {"v5e:2x2", "v6e:2x2", "v5p:2x2x1", "tpu7x:2x2x1"};
  static constexpr const char* kGpus[] = {"h100", "b200:4", "a100:4", "h200"};
  std::vector<Case> all;
  for (const auto& [type, model] : first) {
    const size_t turn = all.size() / 2 % 4;
    all.push_back({model, kTpus[turn]});
    all.push_back({model, kGpus[turn]});
  }
  return all;
}

class CompileEveryFamily : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    const bool gpu = plan::gpu_of_topology(GetParam().topology) != nullptr;
    const std::string plugin = gpu ? "cuda" : "tpu";
    for (const pjrt::PluginLocation& location : pjrt::locate_plugins()) {
      if (location.name == plugin) return;
    }
    GTEST_SKIP() << "needs `ttpu plugin install " << plugin << "`";
  }
};

TEST_P(CompileEveryFamily, PrefillAndDecode) {
  const std::string model =
      std::string(TTPU_SOURCE_DIR) + "/tests/fixtures/models/" + GetParam().model;
  const SubprocessResult result =
      run_subprocess({TTPU_COMMAND, "compile", model, "--topology", GetParam().topology, "--json",
                      "--max-model-len", "16", "--prefill-tokens", "16"});
  ASSERT_EQ(result.exit_code, 0) << result.errors;
  const Json report = parse_json(result.output, "report");
  for (const char* phase : {"prefill", "decode"}) {
    EXPECT_GT(report.at(phase).at("temporary_bytes"), 0);
    EXPECT_GT(report.at(phase).at("flops"), 0);
    EXPECT_EQ(report.at(phase).at("uncounted_loops"), 0);
  }
}

INSTANTIATE_TEST_SUITE_P(All, CompileEveryFamily, testing::ValuesIn(cases()), [](const auto& test) {
  const std::string& topology = test.param.topology;
  return test.param.model + "_" + topology.substr(0, topology.find(':'));
});

}  // namespace
}  // namespace ttpu
#endif
