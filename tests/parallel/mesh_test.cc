#include "ttpu/parallel/mesh.h"

#include <gtest/gtest.h>

#include "ttpu/base/error.h"
#include "ttpu/parallel/strategy.h"

namespace ttpu::parallel {
namespace {

Layout layout(int64_t data, int64_t tensor, const std::string& strategy) {
  return {Mesh({{kDataAxis, data}, {kTensorAxis, tensor}}), find_strategy(strategy)};
}

TEST(Mesh, NumbersDevicesRowMajor) {
  const Mesh mesh({{"data", 2}, {"tensor", 4}});
  EXPECT_EQ(mesh.num_devices(), 8);
  const Layout all(mesh, find_strategy("tensor"));
  const Division data = all.division("batch");
  const Division tensor = all.division("vocab");
  for (int64_t device = 0; device < 8; ++device) {
    EXPECT_EQ(part_of(mesh, data, device), device / 4);
    EXPECT_EQ(part_of(mesh, tensor, device), device % 4);
  }
  EXPECT_EQ(groups_of(mesh, data), (std::vector<Dims>{{0, 4}, {1, 5}, {2, 6}, {3, 7}}));
  EXPECT_EQ(groups_of(mesh, tensor), (std::vector<Dims>{{0, 1, 2, 3}, {4, 5, 6, 7}}));
}

TEST(Mesh, HeadsThatAreFewerThanDevicesAreDividedByTheMajorPartOfTheAxis) {
  const Layout eight = layout(1, 8, "tensor");
  const Division two = eight.division("kv_heads", 2);
  EXPECT_EQ(two.parts, 2);
  EXPECT_EQ(groups_of(eight.mesh(), two), (std::vector<Dims>{{0, 4}, {1, 5}, {2, 6}, {3, 7}}));
  EXPECT_EQ(eight.division("kv_heads", 1).parts, 1);
  EXPECT_EQ(eight.division("kv_heads", 32).parts, 8);
  const Division rest = without(eight.mesh(), eight.division("vocab"), two);
  EXPECT_EQ(rest.parts, 4);
  EXPECT_EQ(groups_of(eight.mesh(), rest), (std::vector<Dims>{{0, 1, 2, 3}, {4, 5, 6, 7}}));
}

TEST(Mesh, ThePlacesAfterADeviceGoRoundItsGroup) {
  const Layout all = layout(2, 4, "tensor");
  const Mesh& mesh = all.mesh();
  EXPECT_EQ(device_after(mesh, all.division("vocab"), 1, 4), 5);
  EXPECT_EQ(device_after(mesh, all.division("vocab"), 3, 6), 5);
  EXPECT_EQ(device_after(mesh, all.division("batch"), 1, 6), 2);
  EXPECT_EQ(device_after(mesh, Division(), 1, 3), 3);
}

TEST(Mesh, ExpertsAreSpreadOverAllDevices) {
  const Layout experts = layout(2, 4, "expert");
  EXPECT_EQ(experts.division("experts").parts, 8);
  EXPECT_TRUE(experts.division("expert_mlp").whole());
  EXPECT_EQ(layout(2, 4, "tensor").division("expert_mlp").parts, 4);
}

TEST(Mesh, OneDeviceDividesNothing) {
  EXPECT_TRUE(layout(1, 1, "expert_context").one_device());
  EXPECT_TRUE(Layout().one_device());
  EXPECT_EQ(Layout().replicas(), 1);
}

TEST(Mesh, RefusesWhatIsNone) {
  EXPECT_THROW(Mesh({{"data", 0}}), Error);
  EXPECT_THROW(Mesh({{"data", 2}, {"data", 2}}), Error);
  EXPECT_THROW(Mesh({{"data", 1 << 10}, {"tensor", 1 << 10}}), Error);
  try {
    find_strategy("tensors");
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("expert_context"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace ttpu::parallel
