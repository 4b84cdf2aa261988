// Devices of which some are another process's, that stand in a grid, or that have memory of their
// own. The plugin is the real one behind tests/engine/faulty_plugin.cc, which makes them so.
#include "ttpu/engine/device.h"

#include <gtest/gtest.h>

#include "tests/engine/support/answers.h"
#include "tests/engine/support/faulty_plugin.h"
#include "tests/support/error_of.h"
#include "ttpu/engine/engine_plan.h"

namespace ttpu::engine {
namespace {

class DeviceTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    load_faulty_plugin("faulty_hide", &hide);
    load_faulty_plugin("faulty_place", &place);
    load_faulty_plugin("faulty_gpu", &gpu);
  }
  void TearDown() override {
    hide(0);
    place(0);
    gpu(0);
  }

  // Four devices, of which the first `hidden` are another process's.
  static pjrt::Client client(int hidden) {
    hide(hidden);
    return pjrt::Client::create(pjrt::load_plugin(FAULTY_PLUGIN),
                                {{"cpu_device_count", int64_t{4}}});
  }

  static inline void (*hide)(int) = nullptr;
  static inline void (*place)(int) = nullptr;
  static inline void (*gpu)(int) = nullptr;
};

std::vector<int> ids(const std::vector<pjrt::Device>& devices) {
  std::vector<int> result;
  for (const pjrt::Device& device : devices) result.push_back(device.id());
  return result;
}

std::vector<std::pair<int64_t, int>> own(const pjrt::Client& client, const parallel::Mesh& mesh) {
  std::vector<std::pair<int64_t, int>> result;
  for (const OwnDevice& device : own_devices(client, mesh)) {
    result.emplace_back(device.place, device.device.id());
  }
  return result;
}

parallel::Mesh tensor(int64_t size) { return parallel::Mesh({{"tensor", size}}); }

using Ids = std::vector<int>;
using Own = std::vector<std::pair<int64_t, int>>;

TEST_F(DeviceTest, OfOneProcessAllAreItsOwnAndThePluginAssignsThem) {
  const pjrt::Client all = client(0);
  EXPECT_EQ(ids(mesh_devices(all, tensor(2))), (Ids{0, 1}));
  EXPECT_EQ(own(all, tensor(4)), (Own{{0, 0}, {1, 1}, {2, 2}, {3, 3}}));
  EXPECT_EQ(compile_options(all, tensor(4)).num_partitions, 4);
  EXPECT_EQ(compile_options(all, tensor(4)).device_assignment, Ids{});
}

TEST_F(DeviceTest, AMeshOverProcessesHasAllDevicesInTheSameOrderEverywhere) {
  const pjrt::Client second = client(2);
  EXPECT_EQ(ids(mesh_devices(second, tensor(4))), (Ids{0, 1, 2, 3}));
  EXPECT_EQ(own(second, tensor(4)), (Own{{2, 2}, {3, 3}}));
  EXPECT_EQ(compile_options(second, tensor(4)).device_assignment, (Ids{0, 1, 2, 3}));
}

TEST_F(DeviceTest, AMeshThatFitsIntoAProcessLiesInIt) {
  const pjrt::Client second = client(2);
  EXPECT_EQ(ids(mesh_devices(second, tensor(2))), (Ids{2, 3}));
  EXPECT_EQ(own(second, tensor(2)), (Own{{0, 2}, {1, 3}}));
  EXPECT_EQ(compile_options(second, tensor(2)).device_assignment, (Ids{2, 3}));
  EXPECT_EQ(compile_options(second, tensor(1)).device_assignment, (Ids{2}));
}

TEST_F(DeviceTest, AProgramRunsOnTheDevicesThatAreAssigned) {
  const pjrt::Client second = client(2);
  const pjrt::LoadedExecutable program = second.compile(
      "func.func public @main(%x: tensor<2xf32>) -> tensor<2xf32> {\n"
      "  %y = stablehlo.add %x, %x : tensor<2xf32>\n"
      "  return %y : tensor<2xf32>\n"
      "}\n",
      compile_options(second, tensor(2)));
  EXPECT_EQ(ids(program.devices()), (Ids{2, 3}));
}

TEST_F(DeviceTest, InAGridTheDevicesOfALayerAreARing) {
  place(2);
  const pjrt::Client all = client(0);
  EXPECT_EQ(ids(mesh_devices(all, tensor(4))), (Ids{0, 2, 3, 1}));
  EXPECT_EQ(compile_options(all, tensor(4)).device_assignment, (Ids{0, 2, 3, 1}));
  EXPECT_EQ(ids(mesh_devices(all, parallel::Mesh({{"data", 2}, {"tensor", 2}}))),
            (Ids{0, 2, 1, 3}));
  EXPECT_EQ(compile_options(all, tensor(2)).device_assignment, Ids{});
}

TEST_F(DeviceTest, AnEngineInAGridSaysWhatOneDeviceSays) {
  const std::string model = TTPU_SOURCE_DIR "/tests/fixtures/models/llama";
  Engine one(model, small_options({}));
  const auto expected = answers(one);
  place(2);
  EngineOptions options = small_options({4, 1, false, "tensor", 1});
  options.device = FAULTY_PLUGIN;
  Engine four(model, options);
  EXPECT_EQ(answers(four), expected);
}

TEST_F(DeviceTest, ThePlatformIsWhatTheClientSays) {
  EXPECT_EQ(platform_of(client(0)), kernels::Platform::kCpu);  // a plugin by its path
  gpu(64);
  const pjrt::Client many = client(0);
  EXPECT_EQ(platform_of(many), kernels::Platform::kCuda);
  const kernels::Target target = target_of(many, true);
  EXPECT_FALSE(target.cpu_kernels());
  EXPECT_EQ(target.tpu, nullptr);
}

TEST_F(DeviceTest, OfAGpuWhatProgramsNeedIsWithinTheFraction) {
  EXPECT_EQ(usable_memory(kernels::Platform::kTpu, 1000, 0.9), 900);
  EXPECT_EQ(usable_memory(kernels::Platform::kCuda, 1000, 0.5), 450);
  const std::string unknown = error_of([] { usable_memory(client(0), 0.9); }, Code::kUnavailable);
  EXPECT_NE(unknown.find("--num-blocks"), std::string::npos) << unknown;
  gpu(100);
  EXPECT_NEAR(static_cast<double>(usable_memory(client(0), 0.5)), 90.0 * (1 << 20), 16);
}

TEST_F(DeviceTest, CachesTakeWhatWeightsLeaveOfADevicesMemory) {
  const std::string model = TTPU_SOURCE_DIR "/tests/fixtures/models/llama";
  EngineOptions options = small_options({});
  options.max_num_seqs = 32;  // more than fit
  options.max_model_len = 64;
  options.device = FAULTY_PLUGIN;
  gpu(1);
  const auto caches = [&](const ParallelOptions& parallel) {
    options.parallel = parallel;
    Engine engine(model, options);
    EXPECT_LE(engine.stats().weight_bytes + engine.stats().cache_bytes, 9 * (1 << 20) / 10);
    return engine.stats().cache_bytes;
  };
  const int64_t one = caches({});
  EXPECT_GT(one, 1 << 19);
  EXPECT_EQ(2 * caches({2, 1, false, "", 1}), 1 << 20);  // two have room for all of them
  options.device = "cpu";
  options.parallel = {};
  EXPECT_GT(Engine(model, options).stats().cache_bytes, one);
}

TEST_F(DeviceTest, WeightsThatDoNotFitAreExplained) {
  const std::string message =
      error_of([&] { beside_weights(1 << 20, 2 << 20, 2, "h100:2"); }, Code::kResourceExhausted);
  EXPECT_NE(message.find("2 MB on each device of h100:2"), std::string::npos) << message;
}

// What a GPU runs: no kernels of ours, and what transfers need not be the host's memory.
TEST_F(DeviceTest, AnEngineOfAnotherPlatformSaysWhatTheCpuSays) {
  for (const char* name : {"deepseek_v3", "gpt_oss"}) {
    const std::string model = std::string(TTPU_SOURCE_DIR "/tests/fixtures/models/") + name;
    Engine cpu(model, small_options({}));
    const auto expected = answers(cpu);
    gpu(512);
    for (const int64_t devices : {1, 2}) {
      EngineOptions options = small_options({devices, 1, false, "", 1});
      options.device = FAULTY_PLUGIN;
      Engine engine(model, options);
      EXPECT_EQ(answers(engine), expected) << name;
    }
    gpu(0);
  }
}

// The plugin says so itself, and refuses names that it does not know before it looks for a GPU.
TEST(CudaPlugin, IsAskedForThoseOfItsGpusThatAreUsed) {
  std::filesystem::path path;
  for (const pjrt::PluginLocation& location : pjrt::locate_plugins()) {
    if (location.name == "cuda") path = location.path;
  }
  if (path.empty()) GTEST_SKIP() << "needs `ttpu plugin install cuda`";
  const auto plugin = pjrt::load_plugin(path);
  const pjrt::Options options = client_options(*plugin, "cuda", 2, 0.5);
  EXPECT_EQ(std::get<float>(options.at("memory_fraction")), 0.5F);
  EXPECT_EQ(std::get<std::vector<int64_t>>(options.at("visible_devices")),
            (std::vector<int64_t>{0, 1}));
  if (std::filesystem::exists("/dev/nvidiactl")) GTEST_SKIP() << "there is a GPU";
  const std::string message =
      error_of([&] { make_client(path.string(), 2); }, Code::kFailedPrecondition);
  EXPECT_NE(message.find("nvidia-smi"), std::string::npos) << message;
}

}  // namespace
}  // namespace ttpu::engine
