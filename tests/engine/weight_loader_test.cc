// What devices get of a weight.
#include "ttpu/engine/weight_loader.h"

#include <filesystem>
#include <memory>
#include <numeric>
#include <span>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "ttpu/base/error.h"
#include "ttpu/engine/device.h"
#include "ttpu/io/safetensors.h"
#include "ttpu/ir/module.h"
#include "ttpu/nn/weights.h"

namespace ttpu::engine {
namespace {

namespace fs = std::filesystem;

std::shared_ptr<const pjrt::Plugin> plugin() {
  for (const pjrt::PluginLocation& location : pjrt::locate_plugins()) {
    if (location.name == "cpu") return pjrt::load_plugin(location.path);
  }
  fail(Code::kNotFound, "no CPU plugin is installed; run: ttpu plugin install cpu");
}

// The parts of a table [6, 5] of f32 numbers from 1 on, on so many devices.
std::vector<std::vector<float>> parts_of_table(int64_t devices, kernels::Platform platform) {
  const fs::path folder = fs::path(testing::TempDir()) / fmt::format("weight_loader_{}", getpid());
  fs::create_directories(folder);
  std::vector<float> numbers(30);
  std::iota(numbers.begin(), numbers.end(), 1.0F);
  io::write_safetensors(folder / "model.safetensors",
                        std::vector<io::Tensor>{{.name = "table",
                                                 .dtype = DType::kF32,
                                                 .dims = {6, 5},
                                                 .bytes = std::as_bytes(std::span(numbers))}});
  const auto checkpoint = std::shared_ptr<const io::Checkpoint>(io::Checkpoint::open(folder));
  const WeightLoader loader(*checkpoint, {.compute = DType::kF32}, {});
  parallel::Layout layout;
  if (devices > 1) {
    layout = parallel::Layout(parallel::Mesh({{parallel::kTensorAxis, devices}}),
                              parallel::find_strategy("tensor"));
  }
  ir::Module module;
  kernels::Target target;
  target.platform = platform;
  nn::Context context(
      &module.add_function(), target, DType::kF32,
      [&](const nn::WeightDecl& decl) { return loader.format_of(decl); }, layout);
  context.table("table", 6, 5, {"vocab", "embed"});
  const nn::WeightDecl& decl = context.weights().at(0);
  const pjrt::Client client = pjrt::Client::create(plugin(), {{"cpu_device_count", devices}});
  const auto buffers = loader.load_parts(decl, layout.mesh(), client,
                                         own_devices(client, layout.mesh()), checkpoint);
  std::vector<std::vector<float>> parts;
  for (const pjrt::Buffer& buffer : buffers) parts.push_back(buffer.to_vector<float>());
  fs::remove_all(folder);
  return parts;
}

TEST(WeightLoader, ATableFillsTheLanesOfATpuWithZeros) {
  for (const int64_t devices : {1, 2}) {
    const auto plain = parts_of_table(devices, kernels::Platform::kCpu);
    const auto parts = parts_of_table(devices, kernels::Platform::kTpu);
    ASSERT_EQ(plain.size(), devices);
    ASSERT_EQ(parts.size(), devices);
    float next = 1;
    for (size_t d = 0; d < parts.size(); ++d) {
      ASSERT_EQ(plain[d].size(), 30 / devices);
      EXPECT_EQ(plain[d].at(0), next);
      ASSERT_EQ(parts[d].size(), 6 / devices * kernels::kTpuLanes);
      for (size_t i = 0; i < parts[d].size(); ++i) {
        EXPECT_EQ(parts[d][i], i % kernels::kTpuLanes < 5 ? next++ : 0) << i;
      }
    }
  }
}

}  // namespace
}  // namespace ttpu::engine
