#include "ttpu/plan/report.h"

#include <gtest/gtest.h>

namespace ttpu::plan {
namespace {

ProgramReport sample() {
  ProgramReport report;
  report.phase = "decode";
  report.topology = "v5e:2x2";
  report.weight_bytes = 3 << 20;
  report.flops = 1.5e9;
  report.estimate = {1e-6, 2e-3, 0, 2e-3, "HBM"};
  report.tokens_per_second = 500;
  report.kernels = {{"attention", "the reference", "heads of 80"}};
  report.schedule.seconds = 4e-3;
  report.schedule.bound = "HBM";
  report.schedule.collectives = {{"all-reduce", 4, 2, 100, 150, 1e-5, 5e-6}};
  report.schedule.kernels = {{"attention", 2, 1000, 0, 1e-6}};
  return report;
}

TEST(Report, SurvivesJson) {
  const Json json = to_json(sample());
  EXPECT_EQ(json["bound"], "HBM");
  EXPECT_EQ(to_json(report_from_json(json)), json);
}

TEST(Report, AMissingFieldIsNamed) {
  Json json = to_json(sample());
  json.erase("code_bytes");
  try {
    report_from_json(json);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("code_bytes"), std::string::npos);
  }
}

TEST(Report, TheTableHasUnits) {
  const std::string table = to_table({sample()});
  EXPECT_NE(table.find("3.00 MiB"), std::string::npos) << table;
  EXPECT_NE(table.find("1.50 G"), std::string::npos) << table;
  EXPECT_NE(table.find("2.00 ms"), std::string::npos) << table;
  EXPECT_NE(table.find("2 all-reduce over 4 devices"), std::string::npos) << table;
  EXPECT_NE(table.find("2 of the kernel attention"), std::string::npos) << table;
  EXPECT_NE(table.find("not given"), std::string::npos) << table;
}

TEST(Report, TheTableShowsWhatAProgramHas) {
  ProgramReport report = sample();
  const auto shows = [&](const char* label) {
    return to_table({report}).find(label) != std::string::npos;
  };
  EXPECT_FALSE(shows("optimizer"));
  EXPECT_FALSE(shows("cache read"));
  report.optimizer_bytes = 6 << 20;
  EXPECT_TRUE(shows("optimizer"));
  EXPECT_TRUE(shows("6.00 MiB"));
  report.cache_bytes = 1 << 20;
  EXPECT_TRUE(shows("cache read"));
}

}  // namespace
}  // namespace ttpu::plan
