#include "ttpu/base/file.h"

#include <gtest/gtest.h>

#include "ttpu/base/error.h"
#include "ttpu/base/json.h"

namespace ttpu {
namespace {

std::filesystem::path scratch(const char* name) {
  return std::filesystem::path(testing::TempDir()) / "ttpu_base_test" / name;
}

TEST(FileTest, WhatIsWrittenIsReadAndMapped) {
  const auto path = scratch("whole");
  write_file(path, "hello");
  EXPECT_EQ(read_file(path), "hello");
  const MappedFile mapped(path);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(mapped.bytes().data()), mapped.size()),
            "hello");
}

TEST(FileTest, AFailedWriteLeavesTheOldFile) {
  const auto path = scratch("kept");
  write_file(path, "old");
  // A full device: the write fails after the file beside was opened.
  EXPECT_THROW(write_file("/dev/full/x", "new"), Error);
  EXPECT_EQ(read_file(path), "old");
}

TEST(FileTest, AMissingFileIsNotFound) {
  try {
    read_file(scratch("absent"));
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kNotFound);
    EXPECT_NE(std::string(error.what()).find("absent"), std::string::npos);
  }
}

TEST(JsonTest, ErrorsNameTheFieldAndWhatWasExpected) {
  const Json json = parse_json(R"({"layers": "two", "deep": {"x": 1.5}})", "config.json");
  const JsonView view(json, "config.json");
  EXPECT_EQ(view.child("deep").get<double>("x"), 1.5);
  EXPECT_EQ(view.get_or<int64_t>("absent", 7), 7);
  try {
    view.get<int64_t>("layers");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()),
              "[json] field 'layers' of config.json is \"two\", expected an integer");
  }
}

TEST(JsonTest, NanAndDepthAreRefused) {
  EXPECT_THROW(parse_json(R"({"eps": NaN})", "config.json"), Error);
  EXPECT_THROW(parse_json(std::string(100000, '['), "bomb"), Error);
}

}  // namespace
}  // namespace ttpu
