// Tiny models with more layers than the fixtures have.
#pragma once

#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "ttpu/base/file.h"
#include "ttpu/base/json.h"
#include "ttpu/io/checkpoint.h"

namespace ttpu::engine {

// "model.layers.3.mlp.up.weight" is {"model.layers.", 3, ".mlp.up.weight"}; layer -1: of none.
struct LayerName {
  std::string before;
  int64_t layer = -1;
  std::string after;
};

inline LayerName layer_name(const std::string& name) {
  for (size_t at = name.find('.'); at != std::string::npos; at = name.find('.', at + 1)) {
    const size_t end = name.find_first_not_of("0123456789", at + 1);
    if (end == std::string::npos || end == at + 1 || name[end] != '.') continue;
    return {name.substr(0, at + 1), std::stoll(name.substr(at + 1, end - at - 1)),
            name.substr(end)};
  }
  return {name, -1, ""};
}

// A folder with `model` and so many layers: those from `first` on again and again, each with other
// numbers. config.json gets the `changes`.
inline std::filesystem::path deep_model(const std::filesystem::path& model, int64_t layers,
                                        const Json& changes = Json::object(), int64_t first = 0) {
  Json config = read_json(model / "config.json");
  const char* key = config.contains("n_layer") ? "n_layer" : "num_hidden_layers";
  const int64_t period = config.at(key).get<int64_t>() - first;
  config[key] = layers;
  if (config.contains("layer_types")) {
    const Json types = config["layer_types"];
    config["layer_types"] = Json::array();
    for (int64_t i = 0; i < layers; ++i) {
      config["layer_types"].push_back(types.at(static_cast<size_t>(first + i % period)));
    }
  }
  config.update(changes);

  std::map<std::string, std::pair<Dims, std::vector<float>>> tensors;
  const auto checkpoint = io::Checkpoint::open(model);
  for (const io::Tensor& tensor : checkpoint->tensors()) {
    std::vector<float> values(static_cast<size_t>(tensor.num_elements()));
    io::copy_tensor(tensor, DType::kF32, reinterpret_cast<std::byte*>(values.data()));
    const LayerName name = layer_name(tensor.name);
    if (name.layer < 0) tensors[tensor.name] = {tensor.dims, values};
    for (int64_t i = name.layer - first; name.layer >= first && i < layers; i += period) {
      std::vector<float> own = values;
      for (float& value : own) value *= 1 + 0.15F * static_cast<float>(i);
      tensors[fmt::format("{}{}{}", name.before, i, name.after)] = {tensor.dims, own};
    }
  }

  Json header = Json::object();
  std::string data;
  for (const auto& [name, tensor] : tensors) {
    const size_t begin = data.size();
    data.append(reinterpret_cast<const char*>(tensor.second.data()), tensor.second.size() * 4);
    header[name] = {
        {"dtype", "F32"}, {"shape", tensor.first}, {"data_offsets", {begin, data.size()}}};
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t size = text.size();
  std::string bytes(sizeof(size), '\0');
  std::memcpy(bytes.data(), &size, sizeof(size));

  const std::filesystem::path folder =
      std::filesystem::path(testing::TempDir()) /
      fmt::format("deep_{}_{}_{}", model.filename().string(), layers, getpid());
  std::filesystem::create_directories(folder);
  write_file(folder / "config.json", config.dump());
  write_file(folder / "model.safetensors", bytes + text + data);
  return folder;
}

}  // namespace ttpu::engine
