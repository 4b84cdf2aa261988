// Every family against transformers: tiny random models, float32, prefill and token by token.
#include <filesystem>

#include <gtest/gtest.h>

#include "tests/engine/support/expected.h"
#include "tests/engine/support/stepper.h"

namespace ttpu::engine {
namespace {

const std::filesystem::path kCases =
    std::filesystem::path(TTPU_SOURCE_DIR) / "tests/fixtures/models";

struct Case {
  std::string name;
  bool kernels;
};

class FamiliesTest : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    folder_ = kCases / GetParam().name;
    expected_ = read_expected(folder_);
    Stepper::Options options;
    options.kernels = GetParam().kernels;
    options.chunk = options.max_length = 32;
    model_ = std::make_unique<Stepper>(read_json(folder_ / "config.json"), folder_, options);
  }

  std::span<const float> row(const std::vector<float>& logits, size_t index) const {
    const auto vocab = static_cast<size_t>(model_->vocab());
    return std::span(logits).subspan(index * vocab, vocab);
  }

  std::filesystem::path folder_;
  Expected expected_;
  std::unique_ptr<Stepper> model_;
};

TEST_P(FamiliesTest, PrefillThenDecodeGivesTheLogitsOfTransformers) {
  EXPECT_LT(
      nmse(model_->append(expected_.prompt), row(expected_.logits, expected_.prompt.size() - 1)),
      1e-6);
  for (size_t i = 0; i < expected_.greedy.size(); ++i) {
    const std::span<const float> logits = model_->append(std::span(&expected_.greedy[i], 1));
    EXPECT_LT(nmse(logits, row(expected_.decode_logits, i)), 1e-6) << "decode step " << i;
  }
}

TEST_P(FamiliesTest, TokenByTokenGivesTheLogitsOfThePrompt) {
  // Dynamic scaling and longrope turn keys by the length at the time, so that one pass and single
  // steps differ in transformers too.
  if (GetParam().name == "llama_rope_dynamic" ||
      GetParam().name.find("longrope") != std::string::npos) {
    GTEST_SKIP() << "one pass and single steps differ by definition";
  }
  for (size_t i = 0; i < expected_.prompt.size(); ++i) {
    const std::span<const float> logits = model_->append(std::span(&expected_.prompt[i], 1));
    EXPECT_LT(nmse(logits, row(expected_.logits, i)), 1e-6) << "token " << i;
  }
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const auto& entry : std::filesystem::directory_iterator(kCases)) {
    if (!std::filesystem::exists(entry.path() / "expected.safetensors")) continue;
    for (const bool kernels : {false, true})
      all.push_back({entry.path().filename().string(), kernels});
  }
  return all;
}

INSTANTIATE_TEST_SUITE_P(All, FamiliesTest, testing::ValuesIn(cases()), [](const auto& test) {
  return test.param.name + (test.param.kernels ? "_kernels" : "_reference");
});

}  // namespace
}  // namespace ttpu::engine
