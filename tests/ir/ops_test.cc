// Every case of tests/ir/ops/*.test on every CPU plugin.
#include <algorithm>
#include <set>

#include <gtest/gtest.h>

#include "support/contains.h"
#include "support/op_case.h"
#include "support/run.h"

namespace ttpu::ir::testing {
namespace {

std::vector<std::string> test_files() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(TTPU_SOURCE_DIR "/tests/ir/ops")) {
    if (entry.path().extension() == ".test") names.push_back(entry.path().stem().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::filesystem::path path_of(const std::string& name) {
  return std::filesystem::path(TTPU_SOURCE_DIR "/tests/ir/ops") / (name + ".test");
}

class OperatorFile : public ::testing::TestWithParam<std::string> {};

TEST_P(OperatorFile, GivesTheExpectedValuesOnEveryCpuPlugin) {
  const std::vector<OpCase> cases = read_cases(path_of(GetParam()));
  ASSERT_FALSE(cases.empty());
  for (const CpuPlugin& plugin : cpu_plugins()) {
    for (const OpCase& op_case : cases) {
      std::string problems;
      try {
        problems = check_case(plugin.client, op_case);
      } catch (const Error& error) {
        problems = error.what();
      }
      if (!op_case.refused.empty()) {
        EXPECT_TRUE(contains(problems, op_case.refused)) << "case " << op_case.name;
        continue;
      }
      EXPECT_EQ(problems, "") << "case " << op_case.name << " on " << plugin.name << "\n"
                              << op_case.module->to_string();
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Ops, OperatorFile, ::testing::ValuesIn(test_files()),
                         [](const auto& parameter) { return parameter.param; });

TEST(OperatorFiles, HoldACaseOfEveryOperator) {
  std::set<OpKind> seen;
  for (const std::string& name : test_files()) {
    for (const OpCase& op_case : read_cases(path_of(name))) {
      for (const auto& function : op_case.module->functions()) {
        walk(function->body(), [&](const Operation& operation) { seen.insert(operation.kind); });
      }
    }
  }
  for (size_t i = 0; i <= static_cast<size_t>(OpKind::kTriangularSolve); ++i) {
    const auto kind = static_cast<OpKind>(i);
    EXPECT_TRUE(seen.count(kind) > 0) << op_name(kind) << " has no case";
  }
}

}  // namespace
}  // namespace ttpu::ir::testing
