#include "ttpu/plan/depth.h"

#include <gtest/gtest.h>

#include "ttpu/models/registry.h"

namespace ttpu::plan {
namespace {

nn::DecoderSpec spec_of(const std::string& name, int64_t layers = 0) {
  Json config =
      read_json(std::string(TTPU_SOURCE_DIR) + "/tests/fixtures/configs/" + name + ".json");
  if (layers > 0) config["num_hidden_layers"] = layers;
  return models::decoder_from_config(config);
}

std::optional<Depths> depths(const std::string& name, int64_t layers = 0, int64_t stages = 1) {
  return depths_of(spec_of(name, layers), stages);
}

TEST(Depths, TheSecondHasOneTurnOfThePatternMore) {
  struct Case {
    const char* model;
    int64_t layers, first, second;
  };
  // Alike; sliding and full attention in turn; five sliding, one full; three dense, then experts.
  const Case kCases[] = {{"llama-3-8b", 32, 2, 3},
                         {"gemma-2-9b", 42, 2, 4},
                         {"gemma-3-27b", 62, 6, 12},
                         {"deepseek-v3", 61, 5, 6}};
  for (const Case& expected : kCases) {
    const std::optional<Depths> found = depths(expected.model);
    ASSERT_TRUE(found.has_value()) << expected.model;
    EXPECT_EQ(found->layers, expected.layers) << expected.model;
    EXPECT_EQ(found->first, expected.first) << expected.model;
    EXPECT_EQ(found->second, expected.second) << expected.model;
  }
}

TEST(Depths, AShallowModelIsCompiledWhole) { EXPECT_FALSE(depths("llama-3-8b", 3).has_value()); }

TEST(Depths, StagesOfAPipelineAreCutAlike) {
  const auto llama = depths("llama-3-8b", 0, 4);
  ASSERT_TRUE(llama.has_value());
  EXPECT_EQ(llama->first, 4 * 2);
  EXPECT_EQ(llama->second, 4 * 3);
  const auto gemma = depths("gemma-2-9b", 0, 3);  // 14 layers each, two a turn
  ASSERT_TRUE(gemma.has_value());
  EXPECT_EQ(gemma->first, 3 * 2);
  EXPECT_EQ(gemma->second, 3 * 4);
  EXPECT_FALSE(depths("llama-3-8b", 0, 16).has_value());  // two layers each
}

TEST(Stages, AreAlikeWhereTheyHaveWholeTurnsOfThePattern) {
  using Numbers = std::vector<int64_t>;
  EXPECT_EQ(stages_of(spec_of("llama-3-8b")), (Numbers{2, 4, 8, 16, 32}));
  EXPECT_EQ(stages_of(spec_of("gemma-2-9b")), (Numbers{3, 7, 21}));
  EXPECT_EQ(stages_of(spec_of("gemma-3-27b")), Numbers{});  // 62 layers, six a turn
  EXPECT_EQ(stages_of(spec_of("deepseek-v3")), Numbers{});  // the first three are dense
}

ProgramReport with_layers(int64_t layers) {
  const auto n = static_cast<double>(layers);
  ProgramReport report;
  report.phase = "decode";
  report.topology = "v5e:2x2";
  report.layers = "unrolled";
  report.tokens = 64;
  report.hbm_bytes = 16 << 20;
  report.weight_bytes = 1000 + 100 * layers;
  report.flops = 7 + 3 * n;
  report.compiler_bytes = -1;
  report.schedule.seconds = 1e-3 + 2e-3 * n;
  report.schedule.hbm_limit = 1e-3 * n;
  report.schedule.compute_limit = 4e-3;
  report.schedule.collectives = {{"all-reduce", 4, 2 * n, 200 * n, 300 * n, 1e-5 * n, 1e-6 * n},
                                 {"all-gather", 4, 1, 50, 40, 1e-6, 1e-6}};
  report.schedule.kernels = {{"attention", n, 10 * n, 20 * n, 1e-4 * n}};
  find_limit(&report.schedule);
  return report;
}

TEST(Depths, FiguresGoOnAsAStraightLine) {
  const ProgramReport all = at_depth(with_layers(2), with_layers(3), {32, 2, 3});
  const ProgramReport whole = with_layers(32);
  EXPECT_EQ(all.weight_bytes, whole.weight_bytes);
  EXPECT_EQ(all.hbm_bytes, whole.hbm_bytes);
  EXPECT_EQ(all.compiler_bytes, -1);
  EXPECT_DOUBLE_EQ(all.flops, whole.flops);
  EXPECT_DOUBLE_EQ(all.schedule.seconds, whole.schedule.seconds);
  ASSERT_EQ(all.schedule.collectives.size(), 2U);
  EXPECT_DOUBLE_EQ(all.schedule.collectives[0].count, 64);
  EXPECT_DOUBLE_EQ(all.schedule.collectives[0].sent_bytes, 300 * 32);
  EXPECT_DOUBLE_EQ(all.schedule.collectives[1].count, 1);
  EXPECT_DOUBLE_EQ(all.schedule.kernels.at(0).bytes, 320);
  EXPECT_EQ(with_layers(3).schedule.bound, "compute");
  EXPECT_EQ(all.schedule.bound, "HBM");  // 32 ms of bytes, 4 of products
  EXPECT_EQ(all.layers, "unrolled, from programs of 2 and 3 layers");
}

}  // namespace
}  // namespace ttpu::plan
