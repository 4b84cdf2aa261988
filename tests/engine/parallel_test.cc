// The engine on several devices says what it says on one.
#include <cstdlib>
#include <filesystem>
#include <map>

#include <gtest/gtest.h>

#include "tests/engine/support/answers.h"
#include "ttpu/models/registry.h"

namespace ttpu::engine {
namespace {

const std::filesystem::path kModels =
    std::filesystem::path(TTPU_SOURCE_DIR) / "tests/fixtures/models";

EngineOptions options_of(const ParallelOptions& parallel, bool kernels = true) {
  EngineOptions options = small_options(parallel);
  options.custom_calls = kernels;
  return options;
}

struct Case {
  std::string model;
  ParallelOptions parallel;
  std::string name() const {
    return fmt::format("{}_{}_tensor{}_data{}", model, parallel.strategy,
                       parallel.tensor_parallel_size, parallel.data_parallel_size);
  }
};

bool has_experts(const nn::DecoderSpec& spec) {
  return std::any_of(spec.layers.begin(), spec.layers.end(), [](const nn::LayerSpec& layer) {
    return std::holds_alternative<nn::MoeSpec>(layer.mlp);
  });
}

// Families whose layers differ most.
bool takes_all(const std::string& model) {
  return std::getenv("TTPU_TEST_ALL") != nullptr || model == "llama" || model == "mixtral" ||
         model == "deepseek_v2";
}

// The first tiny model of each family with a strategy (some with every one that they can have), all
// of them with TTPU_TEST_ALL set; the meshes in turn.
std::vector<Case> cases() {
  static constexpr std::pair<int64_t, int64_t> kMeshes[] = {{2, 1}, {4, 1}, {8, 1}, {1, 2},
                                                            {2, 2}, {4, 2}, {2, 4}};
  std::map<std::string, std::string> first;
  for (const auto& entry : std::filesystem::directory_iterator(kModels)) {
    if (!std::filesystem::exists(entry.path() / "expected.safetensors")) continue;
    const std::string name = entry.path().filename().string();
    const Json config = read_json(entry.path() / "config.json");
    std::string& known = first[config.at("model_type").get<std::string>()];
    if (known.empty() || name < known) known = name;
  }
  std::vector<Case> all;
  size_t turn = 0;
  for (const auto& [type, model] : first) {
    const bool experts =
        has_experts(models::decoder_from_config(read_json(kModels / model / "config.json")));
    std::vector<std::string> names;
    for (const parallel::Strategy& strategy : parallel::strategies()) {
      if (experts || !strategy.name.starts_with("expert")) names.push_back(strategy.name);
    }
    if (!takes_all(model)) names = {names[turn % names.size()]};
    for (const std::string& name : names) {
      const auto& [tensor, data] = kMeshes[turn++ % std::size(kMeshes)];
      all.push_back({model, {tensor, data, false, name}});
    }
  }
  return all;
}

class ParallelFamilies : public testing::TestWithParam<Case> {};

TEST_P(ParallelFamilies, SayWhatOneDeviceSays) {
  const std::filesystem::path model = kModels / GetParam().model;
  Engine one(model, options_of({}));
  Engine many(model, options_of(GetParam().parallel));
  EXPECT_EQ(answers(many), answers(one));
  EXPECT_EQ(many.compilations_after_start(), 0);
}

INSTANTIATE_TEST_SUITE_P(All, ParallelFamilies, testing::ValuesIn(cases()),
                         [](const auto& test) { return test.param.name(); });

TEST(Ulysses, ADeviceHasTheAttentionsProjectionsOfAllHeads) {
  const auto bytes = [](const char* strategy) {
    return Engine(kModels / "llama", options_of({2, 1, false, strategy}, false))
        .stats()
        .weight_bytes;
  };
  const int64_t attention = 64 * 32 + 2 * 32 * 32 + 32 * 64;  // numbers of each of two layers
  EXPECT_EQ(bytes("ulysses") - bytes("sequence"), 4 * 2 * attention / 2);
}

}  // namespace
}  // namespace ttpu::engine
