// What transformers says of a tiny model: expected.safetensors beside it.
#pragma once

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <span>
#include <vector>

#include "ttpu/base/error.h"
#include "ttpu/io/safetensors.h"

namespace ttpu::engine {

inline bool has(const io::Safetensors& file, const std::string& name) {
  return std::any_of(file.tensors.begin(), file.tensors.end(),
                     [&](const io::Tensor& tensor) { return tensor.name == name; });
}

template <typename T>
std::vector<T> values_of(const io::Safetensors& file, const std::string& name) {
  for (const io::Tensor& tensor : file.tensors) {
    if (tensor.name != name) continue;
    std::vector<T> out(tensor.bytes.size() / sizeof(T));
    std::memcpy(out.data(), tensor.bytes.data(), tensor.bytes.size());
    return out;
  }
  throw Error(Code::kNotFound, name);
}

struct Expected {
  std::vector<int32_t> prompt;
  std::vector<int32_t> greedy;       // empty where there are none
  std::vector<float> logits;         // [prompt, vocab]
  std::vector<float> decode_logits;  // [greedy, vocab]
};

inline Expected read_expected(const std::filesystem::path& folder) {
  const MappedFile file(folder / "expected.safetensors");
  const io::Safetensors tensors = io::read_safetensors(file);
  Expected expected;
  for (const int64_t id : values_of<int64_t>(tensors, "input_ids")) {
    expected.prompt.push_back(static_cast<int32_t>(id));
  }
  expected.logits = values_of<float>(tensors, "logits");
  if (!has(tensors, "greedy_ids")) return expected;
  for (const int64_t id : values_of<int64_t>(tensors, "greedy_ids")) {
    expected.greedy.push_back(static_cast<int32_t>(id));
  }
  expected.decode_logits = values_of<float>(tensors, "decode_logits");
  return expected;
}

// Normalized mean squared error.
inline double nmse(std::span<const float> actual, std::span<const float> expected) {
  double error = 0;
  double norm = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    const double difference = static_cast<double>(actual[i]) - static_cast<double>(expected[i]);
    error += difference * difference;
    norm += static_cast<double>(expected[i]) * static_cast<double>(expected[i]);
  }
  return error / norm;
}

}  // namespace ttpu::engine
