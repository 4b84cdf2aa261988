// An engine whose layers are divided among stages says what one device says.
#include <filesystem>
#include <map>

#include <gtest/gtest.h>

#include "tests/engine/support/answers.h"
#include "tests/engine/support/deep_model.h"
#include "tests/support/error_of.h"

namespace ttpu::engine {
namespace {

const std::filesystem::path kModels =
    std::filesystem::path(TTPU_SOURCE_DIR) / "tests/fixtures/models";

ParallelOptions stages(int64_t pipe, int64_t tensor = 1, int64_t data = 1,
                       const std::string& strategy = "tensor") {
  return {tensor, data, false, strategy, pipe};
}

// Four sequences, so that decoding has microbatches too.
EngineOptions options_of(const ParallelOptions& parallel) {
  EngineOptions options = small_options(parallel);
  options.max_num_seqs = 4;
  return options;
}

struct Case {
  std::string model;
  int64_t layers;
  ParallelOptions parallel;
  std::string name() const {
    return fmt::format("{}_{}layers_pipe{}_tensor{}_data{}_{}", model, layers,
                       parallel.pipeline_parallel_size, parallel.tensor_parallel_size,
                       parallel.data_parallel_size, parallel.strategy);
  }
};

std::filesystem::path model_of(const std::string& name, int64_t layers) {
  if (name != "deepseek_v2") return deep_model(kModels / name, layers);
  // Its first layer is dense, which leaves no two stages alike.
  return deep_model(kModels / name, layers, {{"first_k_dense_replace", 0}}, 1);
}

class Pipelines : public testing::TestWithParam<Case> {};

TEST_P(Pipelines, SayWhatOneDeviceSays) {
  const auto& [name, layers, parallel] = GetParam();
  const std::filesystem::path model = model_of(name, layers);
  static std::map<std::filesystem::path, std::vector<std::vector<int32_t>>> known;
  if (!known.contains(model)) {
    Engine one(model, options_of({}));
    known[model] = answers(one);
  }
  Engine many(model, options_of(parallel));
  EXPECT_EQ(answers(many), known[model]);
  EXPECT_EQ(many.compilations_after_start(), 0);
}

// Equal layers, biases, windows on some layers, transposed and fused weights, experts in one tensor
// and in many, latent attention.
INSTANTIATE_TEST_SUITE_P(
    All, Pipelines,
    testing::Values(
        Case{"llama", 4, stages(2)}, Case{"llama", 4, stages(4)}, Case{"llama", 4, stages(2, 2)},
        Case{"llama", 4, stages(2, 1, 2)}, Case{"llama", 4, stages(2, 2, 1, "sequence")},
        Case{"llama", 4, stages(2, 2, 1, "ulysses")}, Case{"llama", 4, stages(2, 4, 1, "context")},
        Case{"qwen2", 6, stages(2)}, Case{"qwen3", 4, stages(4)}, Case{"gemma2", 4, stages(2, 2)},
        Case{"gemma3_text", 6, stages(2)}, Case{"gpt2", 4, stages(2, 2)},
        Case{"gpt_neox", 4, stages(4)}, Case{"gpt_oss", 4, stages(2, 2)},
        Case{"mixtral", 4, stages(2, 2, 1, "expert")},
        Case{"mixtral", 4, stages(2, 1, 2, "expert")}, Case{"deepseek_v2", 4, stages(2, 2)}),
    [](const auto& test) { return test.param.name(); });

TEST(Pipeline, PreemptionAndGuessesAreThoseOfOneDevice) {
  const std::filesystem::path model = model_of("gemma2", 4);
  EngineOptions options = options_of({});
  options.num_blocks = 6;
  options.speculation.num_speculative_tokens = 2;
  Engine one(model, options);
  options.parallel = stages(2);
  Engine two(model, options);
  EXPECT_EQ(answers(two), answers(one));
  EXPECT_GT(two.metrics().preemptions, 0);
  EXPECT_GT(two.metrics().accepted_draft_tokens, 0);
}

// Three answers to one prompt, whose blocks they share until they write into them.
std::vector<std::vector<int32_t>> answers_to_one_prompt(Engine& engine) {
  return tokens_of(engine, 3, [](size_t index) {
    Request request;
    for (int32_t i = 0; i < 11; ++i) request.prompt.push_back(5 * i % 60);
    request.sampling.temperature = 1;
    request.sampling.seed = index;
    request.sampling.max_tokens = 8;
    request.sampling.ignore_eos = true;
    return request;
  });
}

TEST(Pipeline, BlocksThatAreFoundAgainOrSharedAreThoseOfOneDevice) {
  const std::filesystem::path model = model_of("gemma2", 4);
  EngineOptions options = options_of({});
  options.num_blocks = 64;
  Engine one(model, options);
  options.parallel = stages(2, 1, 2);
  Engine many(model, options);
  const auto first = answers(many);
  EXPECT_EQ(first, answers(one));
  EXPECT_EQ(answers(many), first);
  EXPECT_EQ(answers_to_one_prompt(many), answers_to_one_prompt(one));
  EXPECT_GT(many.metrics().cached_tokens, 0);
}

TEST(Pipeline, QuantizedWeightsAreThoseOfOneDevice) {
  const std::filesystem::path model = model_of("llama", 4);
  // The groups of int4 are of a device's columns, which `tensor` makes fewer.
  const std::pair<const char*, ParallelOptions> cases[] = {{"int8", stages(2, 2)},
                                                           {"int4", stages(2)}};
  for (const auto& [quantization, parallel] : cases) {
    EngineOptions options = options_of({});
    options.quantization = quantization;
    Engine one(model, options);
    options.parallel = parallel;
    Engine many(model, options);
    EXPECT_EQ(answers(many), answers(one)) << quantization;
  }
}

TEST(Pipeline, ADeviceHasItsStageAlone) {
  const std::filesystem::path model = model_of("llama", 4);
  EngineOptions options = options_of({});
  options.num_blocks = 16;
  const LoadStats one = Engine(model, options).stats();
  options.parallel = stages(4);
  const LoadStats four = Engine(model, options).stats();
  const int64_t norm = 32 * 4;  // the last one, which all have
  EXPECT_EQ(4 * (four.weight_bytes - norm), one.weight_bytes - norm);
  EXPECT_EQ(4 * four.cache_bytes, one.cache_bytes);
}

TEST(Pipeline, WhatCannotBeDividedIsRefused) {
  const auto refused = [](const std::filesystem::path& model, int64_t pipe, Code code) {
    return error_of([&] { Engine(model, options_of(stages(pipe))); }, code);
  };
  const std::string sizes = refused(model_of("llama", 4), 3, Code::kInvalidArgument);
  EXPECT_NE(sizes.find("--pipeline-parallel-size is 3"), std::string::npos) << sizes;
  EXPECT_NE(sizes.find("4 layers"), std::string::npos) << sizes;
  EXPECT_NE(sizes.find("stages that are alike; 1, 2, 4 divide"), std::string::npos) << sizes;
  // Windows on every second layer: stages of one layer are not alike.
  const std::string layers = refused(model_of("gemma2", 4), 4, Code::kUnimplemented);
  EXPECT_NE(layers.find("--pipeline-parallel-size is 4"), std::string::npos) << layers;
  EXPECT_NE(layers.find("give one of 1, 2,"), std::string::npos) << layers;
  // The first layer is dense, the second has experts.
  refused(kModels / "deepseek_v2", 2, Code::kUnimplemented);
  refused(model_of("llama", 4), -1, Code::kInvalidArgument);
}

}  // namespace
}  // namespace ttpu::engine
