// A loop over layers gives what their copies give: logits and caches.
#include <filesystem>
#include <numeric>
#include <random>

#include "tests/kernels/program_testing.h"
#include "ttpu/models/registry.h"

namespace ttpu::models {
namespace {

constexpr int64_t kTokens = 8;
constexpr int64_t kPages = 2;
constexpr int64_t kPageSize = 8;

// The same numbers for a tensor whether it stands alone or in a stack.
std::vector<float> values_of(const nn::WeightDecl& decl) {
  const int64_t total = nn::argument_shape(decl).num_elements();
  const auto part = static_cast<size_t>(total) / decl.names.size();
  std::vector<float> values;
  for (const std::string& name : decl.names) {
    std::seed_seq seed(name.begin(), name.end());
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal(0, 0.25F);
    for (size_t i = 0; i < part; ++i) values.push_back(normal(generator));
  }
  return values;
}

struct Outcome {
  std::vector<float> logits;
  std::vector<float> caches;  // of all layers, one after the other
};

Outcome run(const nn::DecoderSpec& spec, nn::Layers layers) {
  ir::Module module;
  ir::Function& function = module.add_function();
  std::vector<pjrt::Buffer> arguments;
  const auto argument = [&](const auto& values, const Shape& shape) {
    arguments.push_back(kernels::test_client().to_device(values.data(), shape));
    return function.add_argument(shape);
  };
  const auto ints = [&](const std::vector<int32_t>& values) {
    return argument(values, Shape(DType::kS32, {static_cast<int64_t>(values.size())}));
  };
  std::vector<int32_t> counted(kTokens);
  std::iota(counted.begin(), counted.end(), 0);
  nn::StepInputs inputs;
  inputs.tokens = ints({5, 9, 2, 40, 7, 7, 31, 11});
  inputs.positions = ints(counted);
  inputs.batch.kv_lens = ints({kTokens});
  inputs.batch.page_indices = ints({1, 0});
  inputs.batch.cu_q_lens = ints({0, kTokens});
  inputs.batch.distribution = ints({0, 0, 1});
  const ir::Value rows = ints(counted);
  const auto count = static_cast<int64_t>(spec.layers.size());
  const bool scanned = layers == nn::Layers::kScanned;
  std::vector<ir::Value> caches;
  for (int64_t i = 0; i < (scanned ? 1 : count); ++i) {
    Dims dims = {scanned ? count * kPages : kPages, kPageSize};
    for (const int64_t dim : nn::cache_dims(spec.layers[0], DType::kF32)) dims.push_back(dim);
    const Shape shape(DType::kF32, dims);
    const std::vector<float> empty(static_cast<size_t>(shape.num_elements()));
    caches.push_back(argument(empty, shape));
  }
  nn::Context context(&function, kernels::test_target(false), DType::kF32,
                      [](const nn::WeightDecl&) { return nn::WeightFormat{}; });
  const nn::DecoderResult result = nn::decoder(context, spec, inputs, caches, rows, layers);
  for (const nn::WeightDecl& decl : context.weights()) {
    arguments.push_back(
        kernels::test_client().to_device(values_of(decl).data(), nn::argument_shape(decl)));
  }
  ir::Values results = {result.own_logits};
  results.insert(results.end(), result.caches.begin(), result.caches.end());
  function.set_results(results);
  module.verify();
  const pjrt::LoadedExecutable program = kernels::test_client().compile(module.to_string());
  std::vector<const pjrt::Buffer*> pointers;
  for (const pjrt::Buffer& buffer : arguments) pointers.push_back(&buffer);
  const std::vector<pjrt::Buffer> buffers = program.execute(pointers);
  Outcome outcome;
  outcome.logits = buffers[0].to_vector<float>();
  for (size_t i = 1; i < buffers.size(); ++i) {
    const std::vector<float> cache = buffers[i].to_vector<float>();
    outcome.caches.insert(outcome.caches.end(), cache.begin(), cache.end());
  }
  return outcome;
}

nn::DecoderSpec decoder_of(const std::string& name, int64_t layers) {
  Json config = read_json(std::filesystem::path(TTPU_SOURCE_DIR) / "tests/fixtures/models" / name /
                          "config.json");
  config.erase("layer_types");
  config.erase("mlp_only_layers");
  config["num_hidden_layers"] = layers;
  return decoder_from_config(config);
}

class ScanTest : public testing::TestWithParam<const char*> {};

TEST_P(ScanTest, GivesWhatTheCopiesGive) {
  const nn::DecoderSpec spec = decoder_of(GetParam(), 4);
  const Outcome copies = run(spec, nn::Layers::kUnrolled);
  const Outcome loop = run(spec, nn::Layers::kScanned);
  ASSERT_EQ(copies.logits.size(), loop.logits.size());
  ASSERT_EQ(copies.caches.size(), loop.caches.size());
  double largest = 0;
  for (const float logit : copies.logits) largest = std::max(largest, std::abs(double{logit}));
  EXPECT_GT(largest, 0.1);
  for (size_t i = 0; i < loop.logits.size(); ++i) {
    ASSERT_NEAR(loop.logits[i], copies.logits[i], 1e-4 * largest) << i;
  }
  for (size_t i = 0; i < loop.caches.size(); ++i) {
    ASSERT_NEAR(loop.caches[i], copies.caches[i], 1e-3) << i;
  }
}

// Equal layers, windows on every second, experts.
INSTANTIATE_TEST_SUITE_P(Families, ScanTest,
                         testing::Values("llama", "gemma2", "mixtral", "qwen3_moe"),
                         [](const auto& test) { return std::string(test.param); });

TEST(Scan, LayersInNoPatternAreRefused) {
  try {
    run(decoder_of("deepseek_v3", 3), nn::Layers::kScanned);  // the first layer is dense
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kUnimplemented);
    EXPECT_NE(std::string(error.what()).find("layer 1"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace ttpu::models
