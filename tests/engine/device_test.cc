// Devices of which some are another process's, or that stand in a grid. The plugin is the real one
// behind tests/engine/faulty_plugin.cc, which hides and places them.
#include "ttpu/engine/device.h"

#include <gtest/gtest.h>

#include "tests/engine/support/answers.h"
#include "tests/engine/support/faulty_plugin.h"

namespace ttpu::engine {
namespace {

class DeviceTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    load_faulty_plugin("faulty_hide", &hide);
    load_faulty_plugin("faulty_place", &place);
  }
  void TearDown() override {
    hide(0);
    place(0);
  }

  // Four devices, of which the first `hidden` are another process's.
  static pjrt::Client client(int hidden) {
    hide(hidden);
    return pjrt::Client::create(pjrt::load_plugin(FAULTY_PLUGIN),
                                {{"cpu_device_count", int64_t{4}}});
  }

  static inline void (*hide)(int) = nullptr;
  static inline void (*place)(int) = nullptr;
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

}  // namespace
}  // namespace ttpu::engine
