#include "ttpu/io/checkpoint.h"

#include <numeric>
#include <thread>

#include "testing.h"
#include "ttpu/io/ggml_quant.h"
#include "ttpu/io/safetensors.h"

namespace ttpu::io {
namespace {

namespace fs = std::filesystem;

std::vector<float> values_of(const Tensor& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.num_elements()));
  copy_tensor(tensor, DType::kF32, reinterpret_cast<std::byte*>(values.data()));
  return values;
}

void write_one(const fs::path& path, const std::string& name, const std::vector<float>& values) {
  const std::string raw = floats(values);
  write_safetensors(path, std::vector<Tensor>{{.name = name,
                                               .dims = {static_cast<int64_t>(values.size())},
                                               .bytes = as_bytes(raw)}});
}

std::string open_error(const fs::path& path) {
  return error_of([&] { Checkpoint::open(path); });
}

TEST(CheckpointTest, AFolderWithOneFileIsOpened) {
  const fs::path folder = scratch_folder();
  write_one(folder / "model.safetensors", "w", {1, 2, 3});
  const auto checkpoint = Checkpoint::open(folder);
  EXPECT_EQ(values_of(checkpoint->at("w")), (std::vector<float>{1, 2, 3}));
  EXPECT_EQ(checkpoint->total_bytes(), 12);
  Checkpoint::release(checkpoint->at("w"));
  EXPECT_EQ(values_of(checkpoint->at("w")), (std::vector<float>{1, 2, 3}));
  EXPECT_EQ(checkpoint->gguf(), nullptr);
}

TEST(CheckpointTest, ShardsAreJoinedByTheirIndex) {
  const fs::path folder = scratch_folder();
  write_one(folder / "model-00001-of-00002.safetensors", "a", {1});
  write_one(folder / "model-00002-of-00002.safetensors", "b", {2});
  const auto index = [&](std::string_view map) {
    write_file(folder / "model.safetensors.index.json", fmt::format(R"({{"weight_map":{}}})", map));
  };
  index(R"({"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"})");
  const auto checkpoint = Checkpoint::open(folder);
  EXPECT_EQ(checkpoint->tensors().size(), 2u);
  EXPECT_EQ(values_of(checkpoint->at("b")), (std::vector<float>{2}));

  index(R"({"a":"model-00001-of-00002.safetensors","c":"model-00002-of-00002.safetensors"})");
  EXPECT_NE(open_error(folder).find("promises tensor 'c'"), std::string::npos);
  index(R"({"a":"model-00003-of-00002.safetensors"})");
  EXPECT_NE(open_error(folder).find("missing"), std::string::npos);
  index(R"({"a":"../secret.safetensors"})");
  EXPECT_NE(open_error(folder).find("beside it"), std::string::npos);
  index(R"({"a":7})");
  EXPECT_NE(open_error(folder).find("expected a string"), std::string::npos);
  write_one(folder / "model-00002-of-00002.safetensors", "a", {2});
  index(R"({"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"})");
  EXPECT_NE(open_error(folder).find("comes twice"), std::string::npos);
}

TEST(CheckpointTest, AMissingTensorNamesTheNearest) {
  const fs::path folder = scratch_folder();
  write_one(folder / "model.safetensors", "model.layers.0.self_attn.q_proj.weight", {1});
  const auto checkpoint = Checkpoint::open(folder);
  const std::string message =
      error_of([&] { checkpoint->at("model.layers.0.self_attn.k_proj.weight"); });
  EXPECT_NE(message.find("nearest names are model.layers.0.self_attn.q_proj.weight"),
            std::string::npos);
  EXPECT_EQ(nearest_names("abc", {"xyz", "abd", "abc1"}),
            (std::vector<std::string>{"abc1", "abd"}));
}

TEST(CheckpointTest, PicklesAreRefusedWithTheReasonAndWhatToDo) {
  const fs::path folder = scratch_folder();
  write_file(folder / "pytorch_model.bin", "PK");
  for (const fs::path& path : {folder, folder / "pytorch_model.bin"}) {
    const std::string message = open_error(path);
    EXPECT_NE(message.find("pickle"), std::string::npos) << message;
    EXPECT_NE(message.find("save_pretrained"), std::string::npos) << message;
  }
}

TEST(CheckpointTest, AFolderWithoutWeightsSaysWhatIsThere) {
  const fs::path folder = scratch_folder();
  EXPECT_NE(open_error(folder).find("neither model.safetensors"), std::string::npos);
  write_file(folder / "m.gguf", "");
  EXPECT_NE(open_error(folder).find("m.gguf"), std::string::npos);
  EXPECT_NE(open_error(folder / "absent").find("does not exist"), std::string::npos);
}

// 4 heads' worth of what llama.cpp's converter does: w.reshape(heads, 2, half).swapaxes(1, 2).
std::vector<float> interleaved(const std::vector<float>& rows, size_t heads) {
  const size_t half = rows.size() / heads / 2;
  std::vector<float> out(rows.size());
  for (size_t h = 0; h < heads; ++h) {
    for (size_t part = 0; part < 2; ++part) {
      for (size_t i = 0; i < half; ++i) {
        out[(h * half + i) * 2 + part] = rows[(h * 2 + part) * half + i];
      }
    }
  }
  return out;
}

GgufBuilder llama_file() {
  GgufBuilder builder;
  builder.text("general.architecture", "llama")
      .u32("llama.block_count", 1)
      .u32("llama.context_length", 64)
      .u32("llama.embedding_length", 1)
      .u32("llama.attention.head_count", 4)
      .u32("llama.attention.head_count_kv", 2);
  return builder;
}

TEST(CheckpointTest, LlamaRowsComeBackInOrder) {
  std::vector<float> q(32);
  std::iota(q.begin(), q.end(), 0.0f);
  std::vector<float> k(q.begin(), q.begin() + 16);
  GgufBuilder builder = llama_file();
  builder.tensor("blk.0.attn_q.weight", {1, 32}, 0, floats(interleaved(q, 4)));
  builder.tensor("blk.0.attn_k.weight", {1, 16}, 0, floats(interleaved(k, 2)));
  builder.tensor("blk.0.attn_q.bias", {32}, 0, floats(interleaved(q, 4)));
  builder.tensor("rope_freqs.weight", {1}, 0, floats({1}));
  const fs::path path = scratch_folder() / "m.gguf";
  write_file(path, builder.build());
  const auto checkpoint = Checkpoint::open(path);
  EXPECT_EQ(checkpoint->tensors().size(), 3u);
  EXPECT_EQ(values_of(checkpoint->at("model.layers.0.self_attn.q_proj.weight")), q);
  EXPECT_EQ(values_of(checkpoint->at("model.layers.0.self_attn.k_proj.weight")), k);
  EXPECT_EQ(values_of(checkpoint->at("model.layers.0.self_attn.q_proj.bias")), q);
}

TEST(CheckpointTest, EncodedRowsAreReorderedAsTheyAre) {
  std::vector<float> values(8 * 32);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  std::vector<std::byte> blocks(8 * 34);
  quantize_row(Encoding::kQ8_0, values.data(), 256, blocks.data());
  const Tensor tensor{.name = "q",
                      .encoding = Encoding::kQ8_0,
                      .dims = {8, 32},
                      .bytes = blocks,
                      .transform = {.permute_heads = 2}};
  std::vector<std::byte> moved(blocks.size());
  copy_encoded_rows(tensor, 0, 8, moved.data());
  std::vector<float> from_moved(256);
  dequantize_row(Encoding::kQ8_0, moved.data(), 256, from_moved.data());
  EXPECT_EQ(from_moved, values_of(tensor));
  EXPECT_NE(std::memcmp(moved.data(), blocks.data(), moved.size()), 0);
  Tensor shifted = tensor;
  shifted.transform.add = 1;
  EXPECT_THROW(copy_encoded_rows(shifted, 0, 8, moved.data()), Error);
  EXPECT_THROW(copy_encoded_rows(tensor, 0, 9, moved.data()), Error);
  Tensor odd = tensor;
  odd.transform.permute_heads = 3;
  EXPECT_THROW(copy_encoded_rows(odd, 0, 8, moved.data()), Error);
}

TEST(CheckpointTest, RangesOfRowsMakeTheWholeOnSeveralThreads) {
  std::vector<float> values(64 * 48);
  std::iota(values.begin(), values.end(), -1000.0f);
  const std::string raw = floats(values);
  for (const Transform& transform : {Transform{}, Transform{.permute_heads = 4},
                                     Transform{.add = -1}, Transform{.interleave_heads = 1}}) {
    Tensor tensor{.name = "w", .dims = {48, 64}, .bytes = as_bytes(raw), .transform = transform};
    if (transform == Transform{}) tensor.transform.transpose = true;
    const std::vector<float> whole = values_of(tensor);
    std::vector<float> joined(whole.size());
    std::vector<std::thread> threads;
    for (int64_t begin = 0; begin < 48; begin += 16) {
      threads.emplace_back([&, begin] {
        copy_rows(tensor, begin, begin + 16, DType::kF32,
                  reinterpret_cast<std::byte*>(joined.data() + begin * 64));
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(joined, whole);
  }
}

TEST(CheckpointTest, ValuesAreAddedBeforeRounding) {
  const std::string raw = floats({1.00390625f});  // 1 + 2^-8 rounds away in bf16
  const Tensor tensor{
      .name = "norm", .dims = {1}, .bytes = as_bytes(raw), .transform = {.add = -1}};
  uint16_t bits = 0;
  copy_tensor(tensor, DType::kBF16, reinterpret_cast<std::byte*>(&bits));
  EXPECT_EQ(f32_from_bf16(bits), 0x1p-8f);
}

TEST(CheckpointTest, Gpt2MatricesAreTransposedAndNeoxHeadsInterleaved) {
  GgufBuilder gpt2;
  gpt2.text("general.architecture", "gpt2").u32("gpt2.attention.head_count", 1);
  gpt2.tensor("blk.0.ffn_up.weight", {2, 3}, 0, floats({1, 2, 3, 4, 5, 6}));
  const fs::path folder = scratch_folder();
  write_file(folder / "gpt2.gguf", gpt2.build());
  const auto first = Checkpoint::open(folder / "gpt2.gguf");
  const Tensor& up = first->at("transformer.h.0.mlp.c_fc.weight");
  EXPECT_EQ(up.dims, (Dims{2, 3}));
  EXPECT_EQ(values_of(up), (std::vector<float>{1, 3, 5, 2, 4, 6}));

  GgufBuilder neox;
  neox.text("general.architecture", "gptneox").u32("gptneox.attention.head_count", 2);
  neox.tensor("blk.0.attn_qkv.bias", {6}, 0, floats({0, 10, 1, 11, 2, 12}));
  write_file(folder / "neox.gguf", neox.build());
  const auto second = Checkpoint::open(folder / "neox.gguf");
  EXPECT_EQ(values_of(second->at("gpt_neox.layers.0.attention.query_key_value.bias")),
            (std::vector<float>{0, 1, 2, 10, 11, 12}));
}

TEST(CheckpointTest, StackedExpertsAreSplit) {
  GgufBuilder builder = llama_file();
  builder.u32("llama.expert_count", 2);
  builder.tensor("blk.0.ffn_gate_exps.weight", {2, 1, 2}, 0, floats({1, 2, 3, 4}));
  builder.tensor("blk.0.ffn_down.1.weight", {1, 2}, 0, floats({8, 9}));
  const fs::path path = scratch_folder() / "m.gguf";
  write_file(path, builder.build());
  const auto checkpoint = Checkpoint::open(path);
  const Tensor& gate = checkpoint->at("model.layers.0.block_sparse_moe.experts.1.w1.weight");
  EXPECT_EQ(gate.dims, (Dims{1, 2}));
  EXPECT_EQ(values_of(gate), (std::vector<float>{3, 4}));
  EXPECT_EQ(values_of(checkpoint->at("model.layers.0.block_sparse_moe.experts.1.w2.weight")),
            (std::vector<float>{8, 9}));
}

TEST(CheckpointTest, SplitGgufFilesAreJoined) {
  const fs::path folder = scratch_folder();
  GgufBuilder first = llama_file();
  first.tensor("output_norm.weight", {1}, 0, floats({1}));
  GgufBuilder second;
  second.tensor("token_embd.weight", {1, 2}, 0, floats({5, 6}));
  write_file(folder / "m-00001-of-00002.gguf", first.build());
  EXPECT_NE(open_error(folder / "m-00001-of-00002.gguf").find("missing"), std::string::npos);
  write_file(folder / "m-00002-of-00002.gguf", second.build());
  for (const char* part : {"m-00001-of-00002.gguf", "m-00002-of-00002.gguf"}) {
    const auto checkpoint = Checkpoint::open(folder / part);
    EXPECT_EQ(values_of(checkpoint->at("model.embed_tokens.weight")), (std::vector<float>{5, 6}));
    EXPECT_EQ(values_of(checkpoint->at("model.norm.weight")), (std::vector<float>{1}));
  }
}

TEST(CheckpointTest, UnknownArchitecturesAndTensorsAreRefused) {
  const fs::path path = scratch_folder() / "m.gguf";
  write_file(path, GgufBuilder().text("general.architecture", "mamba").build());
  EXPECT_NE(open_error(path).find("known are:"), std::string::npos);
  GgufBuilder builder = llama_file();
  builder.tensor("blk.0.ssm_a", {1}, 0, floats({1}));
  write_file(path, builder.build());
  EXPECT_NE(open_error(path).find("no place in a model"), std::string::npos);
}

TEST(CheckpointTest, ConversionsThatLoseMeaningAreRefused) {
  const Tensor integers{
      .name = "i", .dtype = DType::kS64, .dims = {1}, .bytes = as_bytes("12345678")};
  std::byte out[8];
  EXPECT_THROW(copy_tensor(integers, DType::kBF16, out), Error);
  EXPECT_NO_THROW(copy_tensor(integers, DType::kS64, out));
  EXPECT_NO_THROW(copy_tensor(integers, DType::kF32, out));
}

TEST(CheckpointTest, RealSmolLm2HasTheShapesOfItsConfig) {
  const fs::path path = real_model("smollm2-135m-instruct-q4_1.gguf");
  const auto checkpoint = Checkpoint::open(path);
  EXPECT_EQ(checkpoint->tensors().size(), 272u);
  EXPECT_EQ(checkpoint->at("model.embed_tokens.weight").dims, (Dims{49152, 576}));
  const Tensor& q = checkpoint->at("model.layers.29.self_attn.q_proj.weight");
  EXPECT_EQ(q.encoding, Encoding::kQ4_1);
  EXPECT_EQ(q.transform.permute_heads, 9);
  EXPECT_EQ(checkpoint->at("model.layers.0.self_attn.k_proj.weight").transform.permute_heads, 3);
}

TEST(CheckpointTest, RealGemma3HasItsNormsLoweredByOne) {
  const fs::path path = real_model("gemma3-270m-q4_k_m.gguf");
  const auto checkpoint = Checkpoint::open(path);
  const Tensor& norm = checkpoint->at("model.layers.0.self_attn.q_norm.weight");
  EXPECT_EQ(norm.transform.add, -1);
  const float stored = *reinterpret_cast<const float*>(norm.bytes.data());
  EXPECT_EQ(values_of(norm)[0], stored - 1);
  EXPECT_NE(checkpoint->find("model.layers.17.pre_feedforward_layernorm.weight"), nullptr);
}

}  // namespace
}  // namespace ttpu::io
