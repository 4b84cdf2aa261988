#include "ttpu/io/gguf.h"

#include <rapidcheck.h>

#include "testing.h"
#include "ttpu/io/gguf_config.h"
#include "ttpu/io/gguf_names.h"

namespace ttpu::io {
namespace {

std::string refusal(const std::string& file) {
  return error_of([&] { Gguf::parse(as_bytes(file), "x.gguf"); });
}

void expect_refusal(const std::string& file, std::string_view message) {
  const std::string text = refusal(file);
  EXPECT_NE(text.find(message), std::string::npos) << text;
  EXPECT_TRUE(text.starts_with("[gguf]")) << text;
}

GgufBuilder small_file() {
  GgufBuilder builder;
  builder.text("general.architecture", "llama").u32("llama.block_count", 1);
  builder.tensor("token_embd.weight", {2, 3}, 0, floats({1, 2, 3, 4, 5, 6}));
  return builder;
}

TEST(GgufTest, ValuesOfEveryTypeAreRead) {
  GgufBuilder builder;
  builder.entry("u8", 0).put<uint8_t>(200);
  builder.entry("i8", 1).put<int8_t>(-3);
  builder.entry("u16", 2).put<uint16_t>(60000);
  builder.entry("i16", 3).put<int16_t>(-300);
  builder.entry("u32", 4).put<uint32_t>(4'000'000'000);
  builder.entry("i32", 5).put<int32_t>(-70000);
  builder.entry("f32", 6).put(1.5f);
  builder.boolean("yes", true).text("text", "h\u00e9");
  builder.entry("u64", 10).put<uint64_t>(uint64_t{1} << 40);
  builder.entry("i64", 11).put<int64_t>(-(int64_t{1} << 40));
  builder.entry("f64", 12).put(0.1);
  builder.i32s("list", {1, -2}).strings("words", {"a", "", "bc"}).f32s("scores", {0.5f});
  builder.i32s("same", {7, 7, 7});
  // Arrays of arrays are skipped over, whatever is in them.
  builder.entry("nested", 9).put<uint32_t>(9).put<uint64_t>(1).put<uint32_t>(0).put<uint64_t>(2);
  builder.entry("after", 0).put<uint8_t>(1);
  std::string file = builder.build();
  const size_t at = file.find("after") - 8;
  file.insert(at, "\1\2");  // the two items of the inner array
  const Gguf gguf = Gguf::parse(as_bytes(file), "x");
  EXPECT_EQ(gguf.get_int("u8"), 200);
  EXPECT_EQ(gguf.get_int("i8"), -3);
  EXPECT_EQ(gguf.get_int("u16"), 60000);
  EXPECT_EQ(gguf.get_int("i16"), -300);
  EXPECT_EQ(gguf.get_int("u32"), 4'000'000'000);
  EXPECT_EQ(gguf.get_int("i32"), -70000);
  EXPECT_EQ(gguf.get_float("f32"), 1.5);
  EXPECT_EQ(gguf.get_bool("yes"), true);
  EXPECT_EQ(gguf.get_string("text"), "h\u00e9");
  EXPECT_EQ(gguf.get_int("u64"), int64_t{1} << 40);
  EXPECT_EQ(gguf.get_int("i64"), -(int64_t{1} << 40));
  EXPECT_EQ(gguf.get_float("f64"), 0.1);
  EXPECT_EQ(gguf.get_ints("list"), (std::vector<int64_t>{1, -2}));
  EXPECT_EQ(gguf.get_strings("words"), (std::vector<std::string_view>{"a", "", "bc"}));
  EXPECT_EQ(gguf.get_floats("scores"), (std::vector<float>{0.5f}));
  EXPECT_EQ(gguf.get_int("same"), 7);
  EXPECT_EQ(gguf.get_int("after"), 1);
  EXPECT_EQ(gguf.get_int("absent"), std::nullopt);
  EXPECT_THROW(gguf.get_int("text"), Error);
  EXPECT_THROW(gguf.get_int("list"), Error);
  EXPECT_THROW(gguf.get_string("u8"), Error);
  EXPECT_THROW(gguf.get_strings("list"), Error);
}

TEST(GgufTest, TensorsAreRowMajorOutermostFirst) {
  for (const uint32_t version : {2u, 3u}) {
    const std::string file = small_file().build(version);
    const Gguf gguf = Gguf::parse(as_bytes(file), "x");
    const Tensor* tensor = gguf.find_tensor("token_embd.weight");
    ASSERT_NE(tensor, nullptr);
    EXPECT_EQ(tensor->dims, (Dims{3, 2}));
    std::vector<float> values(6);
    copy_tensor(*tensor, DType::kF32, reinterpret_cast<std::byte*>(values.data()));
    EXPECT_EQ(values, (std::vector<float>{1, 2, 3, 4, 5, 6}));
  }
}

TEST(GgufTest, OtherFormatsVersionsAndByteOrdersAreRefused) {
  expect_refusal("", "truncated");
  expect_refusal("GGML0000000000000000", "does not begin with 'GGUF'");
  expect_refusal(small_file().build(1), "version 1");
  expect_refusal(small_file().build(9), "version 9");
  expect_refusal(small_file().build(0x03000000), "big-endian");
}

TEST(GgufTest, LyingCountsAndLengthsAreRefused) {
  expect_refusal(Bytes().raw("GGUF").put(3).put(UINT64_MAX).put<uint64_t>(0).text, "claims");
  expect_refusal(Bytes().raw("GGUF").put(3).put<uint64_t>(0).put(UINT64_MAX).text, "claims");
  {
    GgufBuilder builder;
    builder.entry("k", 8).put<uint64_t>(UINT64_MAX - 3);
    expect_refusal(builder.build(), "needs");
  }
  {
    GgufBuilder builder;
    builder.entry("k", 9).put<uint32_t>(12).put<uint64_t>(UINT64_MAX / 4);
    expect_refusal(builder.build(), "claims");
  }
  {
    GgufBuilder builder;
    builder.entry("k", 9).put<uint32_t>(8).put<uint64_t>(1'000'000'000);
    expect_refusal(builder.build(), "more than the rest");
  }
  {
    GgufBuilder builder;
    Bytes& out = builder.entry("k", 9);
    for (int i = 0; i < 1000; ++i) out.put<uint32_t>(9).put<uint64_t>(1);
    expect_refusal(builder.build(), "nested");
  }
  {
    GgufBuilder builder;
    builder.entry("k", 77).put<uint64_t>(0);
    expect_refusal(builder.build(), "unknown value type");
  }
}

TEST(GgufTest, LyingTensorsAreRefused) {
  const auto one = [](std::vector<uint64_t> dims, uint32_t type, uint64_t offset) {
    GgufBuilder builder;
    builder.lying_tensor("t", dims, type, offset, std::string(64, 'x'));
    return builder.build();
  };
  expect_refusal(one({64}, 0, 0), "truncated");
  expect_refusal(one({1}, 0, 1 << 20), "truncated");
  expect_refusal(one({1}, 0, UINT64_MAX - 31), "truncated");
  expect_refusal(one({4}, 0, 7), "not a multiple");
  expect_refusal(one({UINT64_MAX, 2}, 0, 0), "impossible shape");
  expect_refusal(one({uint64_t{1} << 40, uint64_t{1} << 40}, 0, 0), "impossible shape");
  expect_refusal(one({1, 1, 1, 1, 1}, 0, 0), "5 dimensions");
  expect_refusal(one({33}, 8, 0), "not whole Q8_0 blocks");
  expect_refusal(one({256}, 23, 0), "IQ4_XS");
  expect_refusal(one({32}, 40, 0), "NVFP4");
  expect_refusal(one({33}, 39, 0), "not whole MXFP4 blocks");
  expect_refusal(one({32}, 4711, 0), "unknown type");
  GgufBuilder overlap;
  overlap.lying_tensor("a", {16}, 0, 0, std::string(64, 'x'));
  overlap.lying_tensor("b", {16}, 0, 32, std::string(64, 'x'));
  expect_refusal(overlap.build(), "overlap");
  GgufBuilder twice;
  twice.tensor("a", {1}, 0, "1234").tensor("a", {1}, 0, "1234");
  expect_refusal(twice.build(), "comes twice");
  GgufBuilder keys;
  keys.u32("k", 1).u32("k", 2);
  expect_refusal(keys.build(), "comes twice");
  GgufBuilder alignment;
  alignment.u32("general.alignment", 24);
  expect_refusal(alignment.build(), "power of two");
}

TEST(GgufTest, DamagedBytesNeverDoMoreThanThrow) {
  GgufBuilder builder = small_file();
  builder.strings("tokenizer.ggml.tokens", {"a", "b"}).f32s("x", {1, 2});
  const std::string good = builder.build();
  EXPECT_TRUE(rc::check(
      "mutate", [&](const std::vector<std::pair<uint16_t, uint8_t>>& changes, uint16_t length) {
        std::string bad = good;
        for (const auto& [at, value] : changes) bad[at % bad.size()] = static_cast<char>(value);
        bad.resize(std::min<size_t>(bad.size(), length % (2 * bad.size())));
        try {
          const Gguf gguf = Gguf::parse(as_bytes(bad), "bad");
          gguf_config(gguf);
          for (const Tensor& tensor : transformers_tensors(gguf)) {
            std::vector<std::byte> out(static_cast<size_t>(tensor.num_elements()) * 4);
            copy_tensor(tensor, DType::kF32, out.data());
          }
        } catch (const Error&) {
        }
      }));
}

}  // namespace
}  // namespace ttpu::io
