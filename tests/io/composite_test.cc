#include "ttpu/io/composite.h"

#include <cmath>
#include <map>

#include "testing.h"
#include "ttpu/base/json.h"
#include "ttpu/io/checkpoint.h"
#include "ttpu/io/mxfp4.h"
#include "ttpu/io/quantized_matrix.h"
#include "ttpu/io/safetensors.h"

namespace ttpu::io {
namespace {

namespace fs = std::filesystem;

std::vector<float> values_of(const Tensor& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.num_elements()));
  copy_tensor(tensor, DType::kF32, reinterpret_cast<std::byte*>(values.data()));
  return values;
}

// Ranges of any size give what the whole gives.
void expect_ranges_agree(const Tensor& tensor) {
  const std::vector<float> whole = values_of(tensor);
  for (const int64_t step : {int64_t{1}, int64_t{3}, int64_t{7}}) {
    std::vector<float> joined(whole.size());
    for (int64_t begin = 0; begin < tensor.rows(); begin += step) {
      copy_rows(tensor, begin, std::min(tensor.rows(), begin + step), DType::kF32,
                reinterpret_cast<std::byte*>(joined.data() + begin * tensor.row_elements()));
    }
    EXPECT_EQ(joined, whole) << step;
  }
  EXPECT_THROW(copy_rows(tensor, 0, tensor.rows() + 1, DType::kF32, nullptr), Error);
  EXPECT_FALSE(tensor.transform.keeps_blocks());
}

// The tiny models that transformers saved.
std::unique_ptr<Checkpoint> tiny_model(const char* name) {
  return Checkpoint::open(fs::path(TTPU_SOURCE_DIR) / "tests/fixtures/models" / name);
}

TEST(CompositeTest, GptOssExpertsComeTogetherFromGgufsStacks) {
  const auto saved = tiny_model("gpt_oss");
  const std::string prefix = "model.layers.0.mlp.experts.";
  const Tensor& gate_up = saved->at(prefix + "gate_up_proj");  // [experts, in, 2 * out]
  const std::vector<float> all = values_of(gate_up);
  const auto experts = gate_up.dims[0], in = gate_up.dims[1], out = gate_up.dims[2] / 2;
  std::vector<float> stacks[2];  // [experts, out, in]
  for (int64_t e = 0; e < experts; ++e) {
    for (int64_t o = 0; o < out; ++o) {
      for (int64_t i = 0; i < in; ++i) {
        for (int64_t p = 0; p < 2; ++p) {
          stacks[p].push_back(all[static_cast<size_t>((e * in + i) * 2 * out + 2 * o + p)]);
        }
      }
    }
  }
  const std::vector<float> bias = values_of(saved->at(prefix + "gate_up_proj_bias"));
  std::vector<float> biases[2];
  for (size_t i = 0; i < bias.size(); ++i) biases[i % 2].push_back(bias[i]);
  GgufBuilder builder;
  builder.text("general.architecture", "gpt-oss");
  const std::vector<uint64_t> dims = {static_cast<uint64_t>(in), static_cast<uint64_t>(out),
                                      static_cast<uint64_t>(experts)};
  const std::vector<uint64_t> bias_dims = {dims[1], dims[2]};
  builder.tensor("blk.0.ffn_gate_exps.weight", dims, 0, floats(stacks[0]));
  builder.tensor("blk.0.ffn_up_exps.weight", dims, 0, floats(stacks[1]));
  builder.tensor("blk.0.ffn_gate_exps.bias", bias_dims, 0, floats(biases[0]));
  builder.tensor("blk.0.ffn_up_exps.bias", bias_dims, 0, floats(biases[1]));
  builder.tensor("blk.0.ffn_down_exps.weight", dims, 0, floats(stacks[0]));
  const fs::path path = scratch_folder() / "m.gguf";
  write_file(path, builder.build());
  const auto checkpoint = Checkpoint::open(path);
  const Tensor& joined = checkpoint->at(prefix + "gate_up_proj");
  EXPECT_EQ(joined.dims, gate_up.dims);
  EXPECT_EQ(values_of(joined), all);
  expect_ranges_agree(joined);
  EXPECT_EQ(values_of(checkpoint->at(prefix + "gate_up_proj_bias")), bias);
  expect_ranges_agree(checkpoint->at(prefix + "gate_up_proj_bias"));
  EXPECT_EQ(checkpoint->at(prefix + "down_proj").dims, (Dims{experts, in, out}));
  Checkpoint::release(joined);
  EXPECT_EQ(values_of(joined), all);
  const auto bytes = static_cast<int64_t>(3 * all.size() / 2 + bias.size()) * 4;
  EXPECT_EQ(checkpoint->total_bytes(), bytes);
}

TEST(CompositeTest, DeepSeeksTwoHalvesOfKvBComeTogether) {
  const auto saved = tiny_model("deepseek_v2");
  const Json config = read_json(saved->tensors()[0].file->path().parent_path() / "config.json");
  const auto heads = config.at("num_attention_heads").get<size_t>();
  const auto nope = config.at("qk_nope_head_dim").get<size_t>();
  const auto v = config.at("v_head_dim").get<size_t>();
  const auto rank = config.at("kv_lora_rank").get<size_t>();
  const std::string name = "model.layers.0.self_attn.kv_b_proj.weight";
  const std::vector<float> whole = values_of(saved->at(name));
  ASSERT_EQ(whole.size(), heads * (nope + v) * rank);
  std::vector<float> keys, values;  // [heads, rank, nope] and [heads, v, rank]
  for (size_t h = 0; h < heads; ++h) {
    const float* head = whole.data() + h * (nope + v) * rank;
    for (size_t r = 0; r < rank; ++r) {
      for (size_t n = 0; n < nope; ++n) keys.push_back(head[n * rank + r]);
    }
    values.insert(values.end(), head + nope * rank, head + (nope + v) * rank);
  }
  GgufBuilder builder;
  builder.text("general.architecture", "deepseek2");
  GgufBuilder half = builder;
  half.tensor("blk.0.attn_k_b.weight", {nope, rank, heads}, 0, floats(keys));
  GgufBuilder both = half;
  both.tensor("blk.0.attn_v_b.weight", {rank, v, heads}, 0, floats(values));
  const fs::path path = scratch_folder() / "m.gguf";
  write_file(path, both.build());
  const auto checkpoint = Checkpoint::open(path);
  EXPECT_EQ(checkpoint->at(name).dims, saved->at(name).dims);
  EXPECT_EQ(values_of(checkpoint->at(name)), whole);
  expect_ranges_agree(checkpoint->at(name));

  write_file(path, half.build());
  EXPECT_NE(error_of([&] { Checkpoint::open(path); }).find("without its other half"),
            std::string::npos);
  half.tensor("blk.0.attn_v_b.weight", {rank, v, heads + 1}, 0,
              floats(std::vector<float>((heads + 1) * v * rank)));
  write_file(path, half.build());
  EXPECT_NE(error_of([&] { Checkpoint::open(path); }).find("do not fit"), std::string::npos);
}

std::string bytes_of(size_t count, uint32_t seed) {
  std::string bytes;
  for (size_t i = 0; i < count; ++i) {
    seed = seed * 1664525 + 1013904223;
    bytes += static_cast<char>(seed >> 24);
  }
  return bytes;
}

// A folder with one layer's blocks and scales, of 2 experts with 6 outputs and 64 inputs.
fs::path mxfp4_folder(const std::string& blocks, std::string scales) {
  const fs::path folder = scratch_folder();
  for (char& scale : scales) scale = static_cast<char>(120 + (scale & 15));
  const std::string name = "model.layers.0.mlp.experts.gate_up_proj";
  const std::string header =
      fmt::format(R"({{"{0}_blocks":{{"dtype":"U8","shape":[2,6,2,16],"data_offsets":[0,{1}]}},)"
                  R"("{0}_scales":{{"dtype":"U8","shape":[2,6,{2}],"data_offsets":[{1},{3}]}}}})",
                  name, blocks.size(), scales.size() / 12, blocks.size() + scales.size());
  write_file(folder / "model.safetensors",
             Bytes().put<uint64_t>(header.size()).raw(header).raw(blocks).raw(scales).text);
  return folder;
}

TEST(CompositeTest, PublishedBlocksAndScalesOfGptOssBecomeItsExperts) {
  const std::string blocks = bytes_of(2 * 6 * 2 * 16, 3);
  std::string scales = bytes_of(2 * 6 * 2, 4);
  const auto checkpoint = Checkpoint::open(mxfp4_folder(blocks, scales));
  ASSERT_EQ(checkpoint->tensors().size(), 1u);
  const Tensor& weight = checkpoint->at("model.layers.0.mlp.experts.gate_up_proj");
  EXPECT_EQ(weight.dims, (Dims{2, 64, 6}));
  EXPECT_EQ(weight.dtype, DType::kBF16);
  const std::vector<float> values = values_of(weight);
  const float magnitudes[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  for (size_t e = 0; e < 2; ++e) {
    for (size_t o = 0; o < 6; ++o) {
      for (size_t i = 0; i < 64; ++i) {
        const size_t group = (e * 6 + o) * 2 + i / 32;
        const auto byte = static_cast<uint8_t>(blocks[group * 16 + i % 32 / 2]);
        const int code = i % 2 == 0 ? byte & 15 : byte >> 4;
        const float sign = code & 8 ? -1.0f : 1.0f;
        const int exponent = 120 + (scales[group] & 15) - 127;
        EXPECT_EQ(values[(e * 64 + i) * 6 + o],
                  sign * magnitudes[code & 7] * std::exp2(static_cast<float>(exponent)));
      }
    }
  }
  expect_ranges_agree(weight);
  std::vector<uint16_t> rounded(values.size());  // nothing is lost in bf16
  copy_tensor(weight, DType::kBF16, reinterpret_cast<std::byte*>(rounded.data()));
  for (size_t i = 0; i < values.size(); ++i) EXPECT_EQ(f32_from_bf16(rounded[i]), values[i]);
}

// Codes and scales of every second output, as gate and up are; the numbers are those of the whole.
TEST(CompositeTest, OutputsOfGptOssAreReadAsTheyAreStored) {
  const auto checkpoint =
      Checkpoint::open(mxfp4_folder(bytes_of(2 * 6 * 2 * 16, 3), bytes_of(2 * 6 * 2, 4)));
  const Tensor& weight = checkpoint->at("model.layers.0.mlp.experts.gate_up_proj");
  const std::vector<float> values = values_of(weight);  // [2, 64, 6]
  for (const int64_t offset : {0, 1}) {
    const QuantizedOutputs outputs = quantized_outputs(weight, 2, offset);
    ASSERT_NE(outputs.matrix, nullptr);
    const Quantization form{DType::kF4E2M1FN, 32, false, false, DType::kBF16};
    EXPECT_EQ(outputs.matrix->quantization(), form);
    const QuantizedRows rows = outputs.read(0, 6);
    EXPECT_EQ(rows.rows, 6);
    const std::vector<float> numbers = rows.numbers(form.dtype);
    for (size_t i = 0; i < numbers.size(); ++i) {
      const size_t expert = i / 64 / 3, output = 2 * (i / 64 % 3) + static_cast<size_t>(offset);
      EXPECT_EQ(numbers[i], values[(expert * 64 + i % 64) * 6 + output]);
    }
  }
}

TEST(CompositeTest, BlocksWithoutScalesThatFitAreRefused) {
  const fs::path folder = mxfp4_folder(bytes_of(2 * 6 * 2 * 16, 3), bytes_of(2 * 6 * 3, 4));
  EXPECT_NE(error_of([&] { Checkpoint::open(folder); }).find("do not fit"), std::string::npos);
}

TEST(CompositeTest, Mxfp4OfGgufEqualsTheGgufPackage) {
  const MappedFile file(fs::path(TTPU_SOURCE_DIR) / "tests/fixtures/ggml_quants.safetensors");
  const Safetensors contents = read_safetensors(file);
  std::map<std::string, std::span<const std::byte>> parts;
  for (const Tensor& tensor : contents.tensors) parts[tensor.name] = tensor.bytes;
  const auto blocks = parts.at("MXFP4.blocks");
  const auto expected = parts.at("MXFP4.values");
  GgufBuilder builder;
  builder.text("general.architecture", "llama").u32("llama.attention.head_count", 2);
  // Two rows of 64, as of a matrix whose rows are reordered.
  builder.tensor("blk.0.ffn_up.weight", {64, 2}, 39,
                 {reinterpret_cast<const char*>(blocks.data()), blocks.size()});
  const fs::path path = scratch_folder() / "m.gguf";
  write_file(path, builder.build());
  const auto checkpoint = Checkpoint::open(path);
  const Tensor& tensor = checkpoint->at("model.layers.0.mlp.up_proj.weight");
  const std::vector<float> values = values_of(tensor);
  std::vector<float> package(expected.size() / sizeof(float));  // which has no negative zero
  std::memcpy(package.data(), expected.data(), expected.size());
  EXPECT_EQ(values, package);
  expect_ranges_agree(tensor);
}

// Of two stacks in ggml's blocks the outputs alternate.
TEST(CompositeTest, StacksOfGgmlsMxfp4AreReadAsTheyAreStored) {
  const std::string bytes = bytes_of(2 * 3 * 2 * 17 * 2, 9);
  std::vector<Tensor> stacks(2);
  for (size_t i = 0; i < 2; ++i) {
    stacks[i].name = i == 0 ? "gate" : "up";
    stacks[i].dims = {2, 3, 64};
    stacks[i].dtype = DType::kBF16;
    stacks[i].transform.mxfp4 = true;
    stacks[i].bytes =
        std::as_bytes(std::span(bytes)).subspan(i * bytes.size() / 2, bytes.size() / 2);
  }
  const Tensor joined = gpt_oss_experts("experts", stacks);
  EXPECT_EQ(joined.dims, (Dims{2, 64, 6}));
  for (const int64_t i : {0, 1}) {
    const QuantizedOutputs outputs = quantized_outputs(joined, 2, i);
    ASSERT_NE(outputs.matrix, nullptr);
    EXPECT_EQ(outputs.stride, 1);
    const std::vector<float> numbers = outputs.read(0, 6).numbers(DType::kF4E2M1FN);
    const std::vector<float> expected = values_of(stacks[static_cast<size_t>(i)]);
    ASSERT_EQ(numbers.size(), expected.size());
    for (size_t n = 0; n < numbers.size(); ++n) {
      EXPECT_TRUE(numbers[n] == expected[n] || (std::isnan(numbers[n]) && std::isnan(expected[n])));
    }
  }
  EXPECT_EQ(quantized_outputs(stacks[0], 1, 0).matrix, nullptr);
}

}  // namespace
}  // namespace ttpu::io
