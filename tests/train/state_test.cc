// What gathers weights and scatters gradients, on more devices than go in one phase.
#include "ttpu/train/state.h"

#include <numeric>

#include <gtest/gtest.h>

#include "ttpu/engine/device.h"
#include "ttpu/ir/module.h"
#include "ttpu/parallel/spmd.h"

namespace ttpu::train {
namespace {

using Floats = std::vector<float>;

nn::WeightDecl matrix(Dims dims) {
  nn::WeightDecl decl;
  decl.names = {"w"};
  decl.dims = dims;
  decl.local = std::move(dims);
  decl.placement.resize(decl.dims.size());
  return decl;
}

TEST(Sharding, AWeightIsGatheredAndItsGradientScatteredOverSixteenDevices) {
  const parallel::Mesh mesh = train_mesh(1, 16, 1);
  StepOptions options;
  options.compute = DType::kF32;
  const Sharding sharding(mesh, options);
  const StateWeight weight = sharding.state_of(matrix({32, 3}), {"w"}, 1);
  EXPECT_EQ(weight.decl.local, (Dims{2, 3}));

  ir::Module module;
  ir::Function& device = module.add_function("device");
  const ir::Value shard = device.add_argument({DType::kF32, weight.decl.local});
  const ir::Value whole = sharding.gathered(weight, shard, 0);
  device.set_results({whole, sharding.collected(weight, whole)});
  parallel::add_spmd_main(module, mesh, device, {{weight.decl.placement}},
                          {{}, {weight.decl.placement}});
  module.verify();

  const pjrt::Client client = engine::make_client("cpu", 16);
  const pjrt::LoadedExecutable program =
      client.compile(module.to_string(), engine::compile_options(client, mesh));
  Floats numbers(32 * 3);
  std::iota(numbers.begin(), numbers.end(), 1.0F);
  std::vector<pjrt::Buffer> shards;
  std::vector<std::vector<const pjrt::Buffer*>> arguments;
  for (const auto& [place, of] : engine::own_devices(client, mesh)) {
    const int64_t part = parallel::part_of(mesh, weight.decl.placement[0], place);
    shards.push_back(client.to_device(numbers.data() + part * 6, shard.shape(), of));
  }
  for (const pjrt::Buffer& buffer : shards) arguments.push_back({&buffer});
  const auto results = program.execute(arguments);
  for (const auto& [place, of] : engine::own_devices(client, mesh)) {
    const auto at = static_cast<size_t>(place);
    EXPECT_EQ(results[at][0].to_vector<float>(), numbers) << place;
    const int64_t part = parallel::part_of(mesh, weight.decl.placement[0], place);
    const Floats own = results[at][1].to_vector<float>();
    for (size_t i = 0; i < 6; ++i) {
      EXPECT_EQ(own[i], 16 * numbers[static_cast<size_t>(part) * 6 + i]) << place;
    }
  }
}

TEST(Sharding, AWeightIsDividedAlongTheFirstDimensionThatDivides) {
  StepOptions options;
  const Sharding sharding(train_mesh(1, 4, 1), options);
  EXPECT_EQ(sharding.state_of(matrix({6, 8}), {"w"}, 1).decl.local, (Dims{6, 2}));
  EXPECT_EQ(sharding.state_of(matrix({8, 8}), {"w"}, 3).decl.local, (Dims{3, 2, 8}));
  EXPECT_EQ(sharding.state_of(matrix({6, 7}), {"w"}, 1).shard_axis, -1);
  options.zero_stage = ZeroStage::kNone;
  const Sharding none(train_mesh(1, 4, 1), options);
  EXPECT_EQ(none.state_of(matrix({8, 8}), {"w"}, 1).decl.local, (Dims{8, 8}));
}

}  // namespace
}  // namespace ttpu::train
