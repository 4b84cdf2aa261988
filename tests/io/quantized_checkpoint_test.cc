// Quantized checkpoints of transformers: tests/fixtures/quantized, which
// tools/make_quantized_checkpoints.py makes.
#include "ttpu/io/quantized_checkpoint.h"

#include <cstring>
#include <fstream>

#include "tests/io/testing.h"
#include "ttpu/base/json.h"
#include "ttpu/io/checkpoint.h"
#include "ttpu/io/quantized_matrix.h"
#include "ttpu/io/safetensors.h"

namespace ttpu::io {
namespace {

namespace fs = std::filesystem;

const fs::path kFixtures = fs::path(TTPU_SOURCE_DIR) / "tests/fixtures/quantized";
constexpr const char* kWeight = "model.layers.0.self_attn.q_proj.weight";

struct Case {
  const char* folder;
  Quantization form;
};

const Case kCases[] = {
    {"awq", {DType::kS4, 32, true, false, DType::kF16}},
    {"gptq", {DType::kS4, 32, true, false, DType::kF16}},
    {"gptq_8bit", {DType::kS8, 32, false, false, DType::kF16}},
    {"int4", {DType::kS4, 32, false, false, DType::kBF16}},
    {"int4_zero_points", {DType::kS4, 32, true, false, DType::kBF16}},
    {"int8", {DType::kS8, 0, false, true, DType::kF32}},
    {"float8", {DType::kF8E4M3FN, 0, false, true, DType::kF32}},
    {"fp8_blocks", {DType::kF8E4M3FN, 32, false, false, DType::kF32, 32}},
};

class QuantizedCheckpoint : public testing::TestWithParam<Case> {};

TEST_P(QuantizedCheckpoint, StandsForTheNumbersOfItsOwnPackage) {
  const fs::path folder = kFixtures / GetParam().folder;
  const auto checkpoint = Checkpoint::open(folder);
  const Tensor& tensor = checkpoint->at(kWeight);
  ASSERT_EQ(tensor.dims, (Dims{64, 64}));
  std::vector<float> numbers(64 * 64);
  copy_tensor(tensor, DType::kF32, reinterpret_cast<std::byte*>(numbers.data()));
  const MappedFile file(folder / "expected.safetensors");
  const Safetensors tensors = read_safetensors(file);
  for (const Tensor& expected : tensors.tensors) {
    if (expected.name != "q_proj") continue;
    std::vector<float> values(64 * 64);
    ASSERT_EQ(expected.bytes.size(), values.size() * sizeof(float));
    std::memcpy(values.data(), expected.bytes.data(), expected.bytes.size());
    EXPECT_EQ(numbers, values);
    std::vector<float> some(3 * 64);
    copy_rows(tensor, 5, 8, DType::kF32, reinterpret_cast<std::byte*>(some.data()));
    EXPECT_TRUE(std::equal(some.begin(), some.end(), values.begin() + std::ptrdiff_t{5 * 64}));
  }
}

TEST_P(QuantizedCheckpoint, HasTheFormThatItsConfigPromises) {
  const fs::path folder = kFixtures / GetParam().folder;
  const auto checkpoint = Checkpoint::open(folder);
  const QuantizedMatrix* matrix = quantized_of(checkpoint->at(kWeight));
  ASSERT_NE(matrix, nullptr);
  EXPECT_EQ(matrix->quantization(), GetParam().form);
  const auto config = QuantizationConfig::from_config(read_json(folder / "config.json"));
  ASSERT_TRUE(config);
  const QuantScheme* scheme = config->scheme_of("model.layers.0.self_attn.q_proj");
  ASSERT_NE(scheme, nullptr);
  EXPECT_EQ(scheme->form(64, 64), GetParam().form);
  EXPECT_EQ(quantized_of(checkpoint->at("lm_head.weight")), nullptr);
}

INSTANTIATE_TEST_SUITE_P(All, QuantizedCheckpoint, testing::ValuesIn(kCases),
                         [](const auto& test) { return std::string(test.param.folder); });

// A copy of a fixture whose config or bytes may be changed.
fs::path copy_of(const char* name) {
  const fs::path folder = scratch_folder();
  fs::copy(kFixtures / name, folder);
  return folder;
}

void change_config(const fs::path& folder, const char* key, const Json& value) {
  Json config = read_json(folder / "config.json");
  config["quantization_config"][key] = value;
  std::ofstream(folder / "config.json") << config.dump();
}

// Overwrites the first bytes of a tensor.
void change_tensor(const fs::path& folder, const std::string& name, const std::string& bytes) {
  const fs::path path = folder / "model.safetensors";
  int64_t offset = -1;
  {
    const MappedFile file(path);
    for (const Tensor& tensor : read_safetensors(file).tensors) {
      if (tensor.name == name) offset = tensor.bytes.data() - file.bytes().data();
    }
  }
  ASSERT_GE(offset, 0) << name;
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(offset);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

TEST(QuantizedCheckpointErrors, UnknownMethodsAreRefusedWithThoseThatAreRead) {
  const fs::path folder = copy_of("awq");
  change_config(folder, "quant_method", "bitsandbytes");
  const std::string message = error_of([&] { Checkpoint::open(folder); });
  for (const char* part : {"bitsandbytes", "awq", "gptq", "compressed-tensors", "fp8"}) {
    EXPECT_NE(message.find(part), std::string::npos) << message;
  }
}

TEST(QuantizedCheckpointErrors, FormsThatAreNotReadAreNamed) {
  const fs::path folder = copy_of("awq");
  change_config(folder, "version", "gemv");
  EXPECT_NE(error_of([&] { Checkpoint::open(folder); }).find("gemv"), std::string::npos);
  change_config(folder, "version", "gemm");
  change_config(folder, "bits", 3);
  EXPECT_NE(error_of([&] { Checkpoint::open(folder); }).find("'bits'"), std::string::npos);
}

TEST(QuantizedCheckpointErrors, ColumnsThatWereReorderedAreRefused) {
  const fs::path folder = copy_of("gptq");
  change_tensor(folder, "model.layers.0.mlp.up_proj.g_idx", Bytes().put<int32_t>(1).text);
  const std::string message = error_of([&] { Checkpoint::open(folder); });
  EXPECT_NE(message.find("desc_act=False"), std::string::npos) << message;
}

TEST(QuantizedCheckpointErrors, ZeroPointsThatTheConfigDeniesAreRefused) {
  const fs::path folder = copy_of("gptq");
  change_config(folder, "sym", true);
  EXPECT_NE(error_of([&] { Checkpoint::open(folder); }).find("sym"), std::string::npos);
}

TEST(QuantizedCheckpointErrors, TensorsOfAnotherFormAreRefused) {
  const fs::path folder = copy_of("gptq");
  change_config(folder, "bits", 8);
  const std::string message = error_of([&] { Checkpoint::open(folder); });
  EXPECT_NE(message.find("quantization_config"), std::string::npos) << message;
}

TEST(QuantizationConfigTest, GroupsHaveColumnsAndDivideARow) {
  const auto scheme_of = [](const char* method, int64_t group) {
    Json config;
    config["quantization_config"] = {{"quant_method", method}, {"bits", 4}, {"group_size", group}};
    return QuantizationConfig::from_config(config)->schemes.at(0);
  };
  for (const char* method : {"awq", "gptq"}) {
    EXPECT_EQ(scheme_of(method, -1).group, 0);  // whole rows
    for (const int64_t group : {0, -2}) {
      const std::string message = error_of([&] { scheme_of(method, group); });
      EXPECT_NE(message.find(fmt::format("'group_size' of quantization_config is {}", group)),
                std::string::npos)
          << message;
    }
  }
  const std::string message =
      error_of([&] { scheme_of("gptq", 7).require_whole_groups(4096, "'up_proj'"); });
  EXPECT_NE(message.find("groups of 7 columns"), std::string::npos) << message;
  EXPECT_NE(message.find("4096 columns of 'up_proj'"), std::string::npos) << message;
  EXPECT_NO_THROW(scheme_of("gptq", 128).require_whole_groups(4096, "'up_proj'"));
  EXPECT_NO_THROW(scheme_of("gptq", 128).require_whole_groups(64, "'up_proj'"));
  EXPECT_NO_THROW(scheme_of("gptq", -1).require_whole_groups(4096, "'up_proj'"));
}

TEST(QuantizationConfigTest, ModulesAreLeftOutByNameAndByPattern) {
  const auto config = QuantizationConfig::from_config(Json::parse(R"({"quantization_config": {
      "quant_method": "compressed-tensors", "format": "pack-quantized",
      "ignore": ["lm_head", "re:.*\\.gate$"],
      "config_groups": {
        "group_0": {"targets": ["re:.*mlp.*"], "weights": {"num_bits": 8, "strategy": "channel"}},
        "group_1": {"targets": ["Linear"],
                    "weights": {"num_bits": 4, "strategy": "group", "group_size": 64}}}}})"));
  ASSERT_TRUE(config);
  EXPECT_EQ(config->scheme_of("lm_head"), nullptr);
  EXPECT_EQ(config->scheme_of("model.layers.1.mlp.gate"), nullptr);
  EXPECT_EQ(config->scheme_of("model.layers.1.mlp.gate_proj")->bits, 8);
  EXPECT_EQ(config->scheme_of("model.layers.1.self_attn.q_proj")->group, 64);
}

}  // namespace
}  // namespace ttpu::io
