// Helpers of these tests: scratch folders, real weights, and a GGUF writer that can lie.
#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>
#include <unistd.h>

#include "ttpu/base/error.h"
#include "ttpu/base/file.h"

namespace ttpu::io {

// An empty folder of the running test's own.
inline std::filesystem::path scratch_folder() {
  const auto* info = testing::UnitTest::GetInstance()->current_test_info();
  const auto folder = std::filesystem::path(testing::TempDir()) /
                      fmt::format("ttpu_io_{}_{}_{}", ::getpid(),
                                  std::string_view(info->test_suite_name()), info->name());
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  return folder;
}

// A real model's file, which the set-up fetches.
inline std::filesystem::path real_model(const char* file) {
  const std::string folder = env_or("TTPU_TEST_DATA", (cache_dir() / "models").string());
  const auto path = std::filesystem::path(folder) / file;
  EXPECT_TRUE(std::filesystem::exists(path)) << path << " is missing; run tools/setup.sh models";
  return path;
}

inline std::span<const std::byte> as_bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// Runs `body` and gives the message of the Error it throws; fails the test when it throws none.
template <typename Body>
std::string error_of(Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  ADD_FAILURE() << "no error was thrown";
  return "";
}

// Raw little-endian pieces of a file.
class Bytes {
 public:
  template <typename T>
  Bytes& put(T value) {
    text.append(reinterpret_cast<const char*>(&value), sizeof(T));
    return *this;
  }
  Bytes& raw(std::string_view more) {
    text += more;
    return *this;
  }
  // A GGUF string: length and text.
  Bytes& string(std::string_view value) { return put<uint64_t>(value.size()).raw(value); }
  std::string text;
};

// Writes GGUF files entry by entry.
class GgufBuilder {
 public:
  GgufBuilder& text(std::string_view key, std::string_view value) {
    entry(key, 8).string(value);
    return *this;
  }
  GgufBuilder& u32(std::string_view key, uint32_t value) {
    entry(key, 4).put(value);
    return *this;
  }
  GgufBuilder& f32(std::string_view key, float value) {
    entry(key, 6).put(value);
    return *this;
  }
  GgufBuilder& boolean(std::string_view key, bool value) {
    entry(key, 7).put<uint8_t>(value ? 1 : 0);
    return *this;
  }
  GgufBuilder& strings(std::string_view key, const std::vector<std::string>& values) {
    Bytes& out = entry(key, 9).put<uint32_t>(8).put<uint64_t>(values.size());
    for (const std::string& value : values) out.string(value);
    return *this;
  }
  GgufBuilder& i32s(std::string_view key, const std::vector<int32_t>& values) {
    Bytes& out = entry(key, 9).put<uint32_t>(5).put<uint64_t>(values.size());
    for (const int32_t value : values) out.put(value);
    return *this;
  }
  GgufBuilder& f32s(std::string_view key, const std::vector<float>& values) {
    Bytes& out = entry(key, 9).put<uint32_t>(6).put<uint64_t>(values.size());
    for (const float value : values) out.put(value);
    return *this;
  }
  // `dims` innermost first, as the file has them; `type` is ggml's number.
  GgufBuilder& tensor(std::string_view name, const std::vector<uint64_t>& dims, uint32_t type,
                      std::string_view data) {
    data_.resize((data_.size() + 31) / 32 * 32, '\0');
    return lying_tensor(name, dims, type, data_.size(), data);
  }
  GgufBuilder& lying_tensor(std::string_view name, const std::vector<uint64_t>& dims, uint32_t type,
                            uint64_t offset, std::string_view data) {
    infos_.string(name).put(static_cast<uint32_t>(dims.size()));
    for (const uint64_t dim : dims) infos_.put(dim);
    infos_.put(type).put(offset);
    data_ += data;
    ++tensors_;
    return *this;
  }
  // Adds an entry's key and type, for a value that follows by hand.
  Bytes& entry(std::string_view key, uint32_t type) {
    ++entries_;
    return values_.string(key).put(type);
  }
  std::string build(uint32_t version = 3) const {
    Bytes file;
    file.raw("GGUF").put(version).put<uint64_t>(tensors_).put<uint64_t>(entries_);
    file.raw(values_.text).raw(infos_.text);
    file.text.resize((file.text.size() + 31) / 32 * 32, '\0');
    return file.text + data_;
  }

 private:
  Bytes values_;
  Bytes infos_;
  std::string data_;
  uint64_t entries_ = 0;
  uint64_t tensors_ = 0;
};

inline std::string floats(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

}  // namespace ttpu::io
