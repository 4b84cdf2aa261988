#include "ttpu/io/safetensors.h"

#include <rapidcheck.h>

#include "testing.h"

namespace ttpu::io {
namespace {

std::string file_of(std::string_view header, std::string_view data) {
  return Bytes().put<uint64_t>(header.size()).raw(header).raw(data).text;
}

std::string refusal(const std::string& file) {
  return error_of([&] { parse_safetensors(as_bytes(file), "x.safetensors"); });
}

TEST(SafetensorsTest, WhatIsWrittenIsReadBack) {
  const auto path = scratch_folder() / "model.safetensors";
  const std::vector<float> values = {1, -2, 3.5f, 0, 7, 8};
  const std::string raw = floats(values);
  const std::vector<Tensor> tensors = {
      {.name = "b.weight", .dtype = DType::kF32, .dims = {2, 3}, .bytes = as_bytes(raw)},
      {.name = "a.scale", .dtype = DType::kBF16, .dims = {}, .bytes = as_bytes("ab")},
      {.name = "empty", .dtype = DType::kS64, .dims = {0, 4}, .bytes = {}},
  };
  write_safetensors(path, tensors, {{"format", "pt"}});
  const MappedFile file(path);
  const Safetensors read = read_safetensors(file);
  ASSERT_EQ(read.tensors.size(), 3u);
  EXPECT_EQ(read.metadata.at("format"), "pt");
  for (const Tensor& tensor : read.tensors) {
    const auto same = [&](const Tensor& other) { return other.name == tensor.name; };
    const auto wanted = std::find_if(tensors.begin(), tensors.end(), same);
    ASSERT_NE(wanted, tensors.end());
    EXPECT_EQ(tensor.dtype, wanted->dtype);
    EXPECT_EQ(tensor.dims, wanted->dims);
    EXPECT_TRUE(std::equal(tensor.bytes.begin(), tensor.bytes.end(), wanted->bytes.begin(),
                           wanted->bytes.end()));
  }
}

TEST(SafetensorsTest, AFailedWriteLeavesTheOldFile) {
  const auto path = scratch_folder() / "model.safetensors";
  write_file(path, "old");
  const std::vector<Tensor> wrong = {{.name = "x", .dims = {3}, .bytes = as_bytes("ab")}};
  EXPECT_THROW(write_safetensors(path, wrong), Error);
  EXPECT_EQ(read_file(path), "old");
}

TEST(SafetensorsTest, EveryElementTypeIsRead) {
  for (const auto& [name, size] : std::vector<std::pair<std::string, int>>{{"F64", 8},
                                                                           {"F32", 4},
                                                                           {"F16", 2},
                                                                           {"BF16", 2},
                                                                           {"F8_E4M3", 1},
                                                                           {"F8_E5M2", 1},
                                                                           {"I64", 8},
                                                                           {"I32", 4},
                                                                           {"I16", 2},
                                                                           {"I8", 1},
                                                                           {"U64", 8},
                                                                           {"U32", 4},
                                                                           {"U16", 2},
                                                                           {"U8", 1},
                                                                           {"BOOL", 1}}) {
    const std::string file =
        file_of(fmt::format(R"({{"x":{{"dtype":"{}","shape":[2],"data_offsets":[0,{}]}}}})", name,
                            2 * size),
                std::string(static_cast<size_t>(2 * size), '\1'));
    const Safetensors read = parse_safetensors(as_bytes(file), "x");
    EXPECT_EQ(safetensors_dtype(read.tensors.at(0).dtype), name);
  }
}

TEST(SafetensorsTest, LyingHeaderLengthsAreRefused) {
  EXPECT_NE(refusal("abc").find("too few for a header"), std::string::npos);
  EXPECT_NE(refusal(Bytes().put<uint64_t>(100).raw("{}").text).find("truncated"),
            std::string::npos);
  EXPECT_NE(refusal(Bytes().put<uint64_t>(100'000'001).raw("{}").text).find("at most"),
            std::string::npos);
  EXPECT_NE(refusal(Bytes().put<uint64_t>(UINT64_MAX).raw("{}").text).find("at most"),
            std::string::npos);
  EXPECT_NE(refusal(file_of("", "")).find("does not begin"), std::string::npos);
  EXPECT_NE(refusal(file_of("<!doctype html>", "")).find("does not begin"), std::string::npos);
}

struct BadHeader {
  const char* header;
  const char* data;
  const char* message;
};

TEST(SafetensorsTest, LyingHeadersAreRefusedWithTheReason) {
  const std::vector<BadHeader> cases = {
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}})", "12345678", "takes 4 bytes"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", "1234", "truncated"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "12345678",
       "belong to nothing"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", "12345678", "leave a gap"},
      {R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
       R"("b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}})",
       "123456", "overlap"},
      {R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[4,2]}})", "1234", "not [begin, end]"},
      {R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0]}})", "12", "not [begin, end]"},
      {R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[-2,0]}})", "12", "not [begin, end]"},
      {R"({"a":{"dtype":"I3","shape":[2],"data_offsets":[0,2]}})", "12", "known are"},
      {R"({"a":{"dtype":"U8","shape":[-1,-2],"data_offsets":[0,2]}})", "12", "negative dimension"},
      {R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", "",
       "impossible shape"},
      {R"({"a":{"dtype":"U8","shape":[9223372036854775807,3],"data_offsets":[0,2]}})", "12",
       "impossible shape"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
       R"("a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
       "1", "comes twice"},
      {"{\"a\xff\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", "1",
       "not valid JSON"},
      {R"({"a":{"shape":[1],"data_offsets":[0,1]}})", "1", "no field 'dtype'"},
      {R"({"a":{"dtype":"U8","shape":[1.5],"data_offsets":[0,1]}})", "1", "expected a list"},
      {R"({"a":7})", "", "expected an object"},
      {R"({"__metadata__":{"k":7}})", "", "expected a string"},
      {R"({"a":[[[[[[[[[[[[1]]]]]]]]]]]]})", "", "nested too deeply"},
  };
  for (const BadHeader& bad : cases) {
    const std::string message = refusal(file_of(bad.header, bad.data));
    EXPECT_NE(message.find(bad.message), std::string::npos) << bad.header << "\n" << message;
    EXPECT_TRUE(message.starts_with("[safetensors]") || message.starts_with("[json]")) << message;
  }
}

TEST(SafetensorsTest, AnyTensorsRoundTrip) {
  const auto path = scratch_folder() / "model.safetensors";
  EXPECT_TRUE(rc::check("write, read", [&](const std::vector<std::vector<uint16_t>>& contents) {
    std::vector<Tensor> tensors;
    for (size_t i = 0; i < contents.size(); ++i) {
      tensors.push_back({.name = fmt::format("layer.{}\n\"\u00e9", i),
                         .dtype = DType::kF16,
                         .dims = {1, static_cast<int64_t>(contents[i].size())},
                         .bytes = std::as_bytes(std::span(contents[i]))});
    }
    write_safetensors(path, tensors);
    const MappedFile file(path);
    const Safetensors read = read_safetensors(file);
    RC_ASSERT(read.tensors.size() == tensors.size());
    for (const Tensor& tensor : read.tensors) {
      const auto wanted = std::find_if(tensors.begin(), tensors.end(), [&](const Tensor& other) {
        return other.name == tensor.name;
      });
      RC_ASSERT(wanted != tensors.end());
      RC_ASSERT(std::equal(tensor.bytes.begin(), tensor.bytes.end(), wanted->bytes.begin(),
                           wanted->bytes.end()));
    }
  }));
}

TEST(SafetensorsTest, DamagedBytesNeverDoMoreThanThrow) {
  const std::string good = file_of(
      R"({"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]}})",
      "12345678abc");
  ASSERT_EQ(parse_safetensors(as_bytes(good), "good").tensors.size(), 2u);
  EXPECT_TRUE(rc::check("mutate", [&](const std::vector<std::pair<uint16_t, uint8_t>>& changes,
                                      uint16_t length) {
    std::string bad = good;
    for (const auto& [at, value] : changes) bad[at % bad.size()] = static_cast<char>(value);
    bad.resize(std::min<size_t>(bad.size(), length % (2 * bad.size())));
    try {
      for (const Tensor& tensor : parse_safetensors(as_bytes(bad), "bad").tensors) {
        RC_ASSERT(tensor.bytes.data() + tensor.bytes.size() <= as_bytes(bad).data() + bad.size());
      }
    } catch (const Error&) {
    }
  }));
}

}  // namespace
}  // namespace ttpu::io
