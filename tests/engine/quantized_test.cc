// Quantized weights, made when they are loaded or read from quantized checkpoints: how far logits
// move, and what devices hold.
#include <filesystem>

#include <gtest/gtest.h>

#include "tests/engine/support/answers.h"
#include "tests/engine/support/expected.h"
#include "tests/engine/support/stepper.h"
#include "ttpu/engine/weight_loader.h"

namespace ttpu::engine {
namespace {

const std::filesystem::path kFixtures = std::filesystem::path(TTPU_SOURCE_DIR) / "tests/fixtures";
const std::filesystem::path kModels = kFixtures / "models";

// Of the logits after the prompt, against transformers' in float32.
double error_of(const std::filesystem::path& folder, Stepper::Options options) {
  const Expected expected = read_expected(folder);
  options.chunk = options.max_length = 32;
  Stepper stepper(read_json(folder / "config.json"), folder, options);
  const auto vocab = static_cast<size_t>(stepper.vocab());
  return nmse(stepper.append(expected.prompt), std::span(expected.logits).last(vocab));
}

struct Online {
  const char* model;
  const char* quantization;
  double bound;
};

// Of the families whose weights are stored in different ways: apart, in one matrix, transposed, as
// experts apart and stacked. Their weights are random: nothing in them is robust.
class QuantizedOnline : public testing::TestWithParam<Online> {};

TEST_P(QuantizedOnline, LogitsStayCloseToFloat32) {
  Stepper::Options options;
  options.quantization = GetParam().quantization;
  options.kernels = false;
  const double error = error_of(kModels / GetParam().model, options);
  EXPECT_LT(error, GetParam().bound);
  EXPECT_GT(error, 1e-7) << "nothing is rounded";
}

INSTANTIATE_TEST_SUITE_P(All, QuantizedOnline,
                         testing::Values(Online{"llama", "int8", 3e-3},
                                         Online{"phi3", "int8", 3e-3}, Online{"gpt2", "int8", 3e-3},
                                         Online{"mixtral", "int8", 3e-3},
                                         Online{"gpt_oss", "int8", 3e-3},
                                         Online{"deepseek_v2", "int8", 3e-3},
                                         Online{"llama", "fp8", 0.1}, Online{"phi3", "fp8", 0.1},
                                         Online{"llama", "int4", 0.2}, Online{"gpt2", "int4", 0.2}),
                         [](const auto& test) {
                           return fmt::format("{}_{}", test.param.model, test.param.quantization);
                         });

// tests/fixtures/quantized: the logits are those of the numbers that the weights stand for.
struct Stored {
  const char* folder;
  enum class How { kReference, kKernels, kExpanded } how;
  double bound;
};

class QuantizedStored : public testing::TestWithParam<Stored> {};

TEST_P(QuantizedStored, LogitsAreThoseOfTheDequantizedWeights) {
  Stepper::Options options;
  options.kernels = GetParam().how == Stored::How::kKernels;
  options.expand_weights = GetParam().how == Stored::How::kExpanded;
  EXPECT_LT(error_of(kFixtures / "quantized" / GetParam().folder, options), GetParam().bound);
}

constexpr auto kReference = Stored::How::kReference;
constexpr auto kKernels = Stored::How::kKernels;
constexpr auto kExpanded = Stored::How::kExpanded;
// Where activations are rounded too ("int8", "float8") that is what moves the logits; ggml's
// blocks, which the kernels take, hold scales and zero points as f16.
constexpr Stored kStored[] = {
    {"awq", kReference, 1e-9},        {"awq", kKernels, 1e-5},
    {"gptq", kReference, 1e-9},       {"gptq_8bit", kReference, 1e-9},
    {"gptq_8bit", kKernels, 1e-9},    {"int4", kReference, 1e-9},
    {"int4", kKernels, 1e-9},         {"int4_zero_points", kReference, 1e-9},
    {"int8", kReference, 1e-3},       {"int8", kKernels, 1e-6},
    {"int8", kExpanded, 1e-9},        {"float8", kReference, 5e-2},
    {"fp8_blocks", kReference, 1e-9}, {"fp8_blocks", kExpanded, 1e-9},
    {"mxfp4", kReference, 1e-9},      {"mxfp4", kKernels, 1e-5},
    {"mxfp4", kExpanded, 1e-9},
};

std::string name_of(const testing::TestParamInfo<Stored>& test) {
  constexpr const char* kNames[] = {"reference", "kernels", "expanded"};
  return fmt::format("{}_{}", test.param.folder, kNames[static_cast<int>(test.param.how)]);
}

INSTANTIATE_TEST_SUITE_P(All, QuantizedStored, testing::ValuesIn(kStored), name_of);

EngineOptions options_of(const std::string& quantization, const ParallelOptions& parallel = {}) {
  EngineOptions options = small_options(parallel);
  options.quantization = quantization;
  return options;
}

// Scales go with the rows that they belong to, or with the groups of columns.
TEST(QuantizedEngine, TwoDevicesSayWhatOneSays) {
  const auto expect_equal = [](const std::filesystem::path& model, const std::string& name,
                               bool kernels = true) {
    const auto options = [&](const ParallelOptions& parallel) {
      EngineOptions all = options_of(name, parallel);
      all.custom_calls = kernels;
      return all;
    };
    Engine one(model, options({}));
    for (const char* strategy : {"tensor", "ulysses"}) {
      Engine two(model, options({2, 1, false, strategy}));
      EXPECT_EQ(answers(two), answers(one)) << model << " " << name << " " << strategy;
    }
  };
  for (const char* model : {"phi3", "mixtral"}) expect_equal(kModels / model, "int8");
  for (const char* model : {"int4", "fp8_blocks"}) {
    expect_equal(kFixtures / "quantized" / model, "");
  }
  // Without kernels values of groups are no blocks of ggml's. A device's 48 columns of MXFP4's
  // experts are groups of 16.
  for (const char* model : {"int4_zero_points", "mxfp4"}) {
    expect_equal(kFixtures / "quantized" / model, "", false);
  }
}

// Rows that are rounded before they travel are those that are rounded after it.
TEST(QuantizedEngine, RoundedRowsTravel) {
  for (const char* model : {"phi3", "llama", "gpt2"}) {
    const auto said = [&](const char* strategy) {
      EngineOptions options = options_of("int8", {2, 1, false, strategy});
      options.custom_calls = false;
      Engine engine(kModels / model, options);
      return answers(engine);
    };
    const auto expected = said("tensor");
    for (const char* strategy : {"sequence", "ulysses"}) {
      EXPECT_EQ(said(strategy), expected) << model << " " << strategy;
    }
  }
}

// All columns stay together, so that the groups that are made are those of one device.
TEST(QuantizedEngine, TwoDevicesHaveExpertsOfGroups) {
  EngineOptions options = options_of("int4");
  options.custom_calls = false;
  Engine one(kModels / "mixtral", options);
  options.parallel.data_parallel_size = 2;
  options.parallel.enable_expert_parallel = true;
  Engine two(kModels / "mixtral", options);
  EXPECT_EQ(answers(two), answers(one));
}

TEST(QuantizedEngine, WeightsTakeTheBytesOfTheirForm) {
  const auto bytes = [](const std::string& name) {
    EngineOptions options = options_of(name);
    options.custom_calls = false;
    return Engine(kModels / "llama", options).stats().weight_bytes;
  };
  // Embedding and head [96, 32] and five norms stay f32; 2 layers of 4 * 32 * 32 - 2 * 32 * 32 / 2
  // and 3 * 48 * 32 numbers become bytes, with an f32 for each of their rows.
  const int64_t rest = 4 * (2 * 96 * 32 + 5 * 32);
  const int64_t attention = 64 * 32 + 2 * 32 * 32 + 32 * 64;
  const int64_t linear = 2 * (attention + 3 * 48 * 32);
  const int64_t rows = 2 * (64 + 2 * 32 + 32 + 2 * 48 + 32);
  EXPECT_EQ(bytes("int8"), rest + linear + 4 * rows);
  EXPECT_EQ(bytes(""), rest + 4 * linear);
}

// From config.json alone, a layer that stands for one of each stage of a pipeline.
TEST(QuantizedAhead, AWeightOfStagesThatDifferIsDense) {
  const Json config = parse_json(
      R"({"quantization_config": {"quant_method": "fp8",
                                  "modules_to_not_convert": ["layers.2.up_proj"]}})",
      "config");
  const nn::FormatOf form_of = format_without_weights({}, config);
  const auto form = [&](std::vector<std::string> names) {
    nn::WeightDecl decl;
    decl.names = std::move(names);
    decl.dims = {64, 32};
    decl.is_matrix = decl.quantizable = true;
    return form_of(decl).dtype;
  };
  EXPECT_EQ(form({"layers.0.up_proj.weight", "layers.1.up_proj.weight"}), DType::kF8E4M3FN);
  EXPECT_EQ(form({"layers.0.up_proj.weight", "layers.2.up_proj.weight"}), DType::kBF16);
  EXPECT_EQ(form({"layers.2.up_proj.weight"}), DType::kBF16);
}

// Norms are no matter of it: they have one dimension, and stay as they are.
TEST(QuantizedAhead, GroupsThatDoNotDivideTheColumnsAreRefused) {
  const Json config = parse_json(
      R"({"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 24}})",
      "config");
  const nn::FormatOf form_of = format_without_weights({}, config);
  nn::WeightDecl norm;
  norm.names = {"layers.0.norm.weight"};
  norm.dims = {64};
  EXPECT_EQ(form_of(norm).encoding, Encoding::kDense);
  nn::WeightDecl matrix;
  matrix.names = {"layers.0.up_proj.weight"};
  matrix.is_matrix = matrix.quantizable = true;
  matrix.dims = {64, 48};
  EXPECT_EQ(form_of(matrix).dtype, DType::kS4);
  matrix.dims = {64, 64};
  EXPECT_THROW(form_of(matrix), Error);
}

TEST(QuantizedEngine, UnknownFormsAndWeightsThatAreQuantizedAlreadyAreRefused) {
  EXPECT_THROW(Engine(kModels / "llama", options_of("int3")), Error);
  EXPECT_THROW(Engine(kFixtures / "quantized/awq", options_of("int8")), Error);
}

}  // namespace
}  // namespace ttpu::engine
