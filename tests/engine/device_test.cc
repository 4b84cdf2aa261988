// Devices of which some are another process's. The plugin is the real one behind
// tests/engine/faulty_plugin.cc, which hides them.
#include "ttpu/engine/device.h"

#include <gtest/gtest.h>

#include "tests/engine/support/faulty_plugin.h"

namespace ttpu::engine {
namespace {

class DeviceTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { load_faulty_plugin("faulty_hide", &hide); }
  void TearDown() override { hide(0); }

  // Four devices, of which the first `hidden` are another process's.
  static pjrt::Client client(int hidden) {
    hide(hidden);
    return pjrt::Client::create(pjrt::load_plugin(FAULTY_PLUGIN),
                                {{"cpu_device_count", int64_t{4}}});
  }

  static inline void (*hide)(int) = nullptr;
};

std::vector<int> ids(const std::vector<pjrt::Device>& devices) {
  std::vector<int> result;
  for (const pjrt::Device& device : devices) result.push_back(device.id());
  return result;
}

std::vector<std::pair<int64_t, int>> own(const pjrt::Client& client, int64_t count) {
  std::vector<std::pair<int64_t, int>> result;
  for (const OwnDevice& device : own_devices(client, count)) {
    result.emplace_back(device.place, device.device.id());
  }
  return result;
}

using Ids = std::vector<int>;
using Own = std::vector<std::pair<int64_t, int>>;

TEST_F(DeviceTest, OfOneProcessAllAreItsOwnAndThePluginAssignsThem) {
  const pjrt::Client all = client(0);
  EXPECT_EQ(ids(mesh_devices(all, 2)), (Ids{0, 1}));
  EXPECT_EQ(own(all, 4), (Own{{0, 0}, {1, 1}, {2, 2}, {3, 3}}));
  EXPECT_EQ(compile_options(all, 4).num_partitions, 4);
  EXPECT_EQ(compile_options(all, 4).device_assignment, Ids{});
}

TEST_F(DeviceTest, AMeshOverProcessesHasAllDevicesInTheSameOrderEverywhere) {
  const pjrt::Client second = client(2);
  EXPECT_EQ(ids(mesh_devices(second, 4)), (Ids{0, 1, 2, 3}));
  EXPECT_EQ(own(second, 4), (Own{{2, 2}, {3, 3}}));
  EXPECT_EQ(compile_options(second, 4).device_assignment, (Ids{0, 1, 2, 3}));
}

TEST_F(DeviceTest, AMeshThatFitsIntoAProcessLiesInIt) {
  const pjrt::Client second = client(2);
  EXPECT_EQ(ids(mesh_devices(second, 2)), (Ids{2, 3}));
  EXPECT_EQ(own(second, 2), (Own{{0, 2}, {1, 3}}));
  EXPECT_EQ(compile_options(second, 2).device_assignment, (Ids{2, 3}));
  EXPECT_EQ(compile_options(second, 1).device_assignment, (Ids{2}));
}

TEST_F(DeviceTest, AProgramRunsOnTheDevicesThatAreAssigned) {
  const pjrt::Client second = client(2);
  const pjrt::LoadedExecutable program = second.compile(
      "func.func public @main(%x: tensor<2xf32>) -> tensor<2xf32> {\n"
      "  %y = stablehlo.add %x, %x : tensor<2xf32>\n"
      "  return %y : tensor<2xf32>\n"
      "}\n",
      compile_options(second, 2));
  EXPECT_EQ(ids(program.devices()), (Ids{2, 3}));
}

}  // namespace
}  // namespace ttpu::engine
