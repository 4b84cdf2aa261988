// Whole experts on different devices, in steps of many tokens: those go to the experts by
// all-to-all or are brought together, in one round or, where all tokens choose the same experts, in
// several.
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <gtest/gtest.h>
#include <unistd.h>

#include "tests/engine/support/answers.h"

namespace ttpu::engine {
namespace {

namespace fs = std::filesystem;

const fs::path kModels = fs::path(TTPU_SOURCE_DIR) / "tests/fixtures/models";

// A copy of a model whose routers are zero: every token chooses the same experts.
class OneChoice {
 public:
  explicit OneChoice(const std::string& model)
      : folder_(fs::path(testing::TempDir()) / fmt::format("ttpu_{}_{}", model, ::getpid())) {
    fs::remove_all(folder_);
    fs::copy(kModels / model, folder_);
    std::stringstream read;
    read << std::ifstream(kModels / model / "model.safetensors", std::ios::binary).rdbuf();
    std::string bytes = read.str();
    uint64_t header = 0;
    std::memcpy(&header, bytes.data(), sizeof(header));
    const size_t data = sizeof(header) + header;
    const Json tensors = Json::parse(bytes.substr(sizeof(header), header));
    for (const auto& [name, tensor] : tensors.items()) {
      if (!name.ends_with(".gate.weight")) continue;
      const auto at = tensor.at("data_offsets").get<std::vector<size_t>>();
      std::fill_n(bytes.begin() + static_cast<int64_t>(data + at[0]), at[1] - at[0], '\0');
      ++routers_;
    }
    fs::remove(folder_ / "model.safetensors");
    std::ofstream(folder_ / "model.safetensors", std::ios::binary) << bytes;
  }
  ~OneChoice() { fs::remove_all(folder_); }

  const fs::path& folder() const { return folder_; }
  int routers() const { return routers_; }

 private:
  fs::path folder_;
  int routers_ = 0;
};

EngineOptions options_of(const ParallelOptions& parallel) {
  EngineOptions options = small_options(parallel);
  options.max_model_len = 64;
  options.max_num_seqs = 4;
  options.max_num_batched_tokens = 256;
  return options;
}

// Long prompts, four for each of eight replicas, which fill a step.
std::vector<std::vector<int32_t>> long_answers(Engine& engine) {
  return tokens_of(engine, 32, [](size_t index) {
    Request request;
    for (size_t i = 0; i < 40 + index % 20; ++i) {
      request.prompt.push_back(static_cast<int32_t>((7 * i + i * i * (index + 1)) % 60));
    }
    request.sampling.temperature = 0;
    request.sampling.max_tokens = 4;
    request.sampling.ignore_eos = true;
    return request;
  });
}

struct Case {
  std::string model;
  ParallelOptions parallel;
  ParallelOptions with_one_choice;
};

class ExpertParallel : public testing::TestWithParam<Case> {
 protected:
  static void expect_same(const fs::path& model, const ParallelOptions& parallel) {
    Engine one(model, options_of({}));
    Engine many(model, options_of(parallel));
    EXPECT_EQ(long_answers(many), long_answers(one));
  }
};

TEST_P(ExpertParallel, SaysWhatOneDeviceSays) {
  expect_same(kModels / GetParam().model, GetParam().parallel);
}

TEST_P(ExpertParallel, SaysItWhereAllTokensChooseTheSameExperts) {
  const OneChoice model(GetParam().model);
  ASSERT_GT(model.routers(), 0);
  expect_same(model.folder(), GetParam().with_one_choice);
}

ParallelOptions devices(int64_t tensor, int64_t data, const char* strategy) {
  return {tensor, data, false, strategy};
}

INSTANTIATE_TEST_SUITE_P(
    Families, ExpertParallel,
    testing::Values(Case{"mixtral", devices(1, 8, "expert"), devices(1, 4, "expert")},
                    Case{"qwen3_moe", devices(1, 4, "expert"), devices(4, 2, "expert_sequence")},
                    Case{"deepseek_v2", devices(4, 2, "expert_sequence"), devices(1, 2, "expert")},
                    Case{"deepseek_v3", devices(2, 2, "expert"), devices(1, 8, "expert")}),
    [](const auto& test) { return test.param.model; });

}  // namespace
}  // namespace ttpu::engine
