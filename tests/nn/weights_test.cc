// What a weight's declaration makes of it.
#include "ttpu/nn/weights.h"

#include <gtest/gtest.h>

#include "ttpu/ir/ir.h"

namespace ttpu::nn {
namespace {

// On two devices, with fp8 in blocks of 128 x 128: the scales that a device has.
Dims scales_of(const Dims& dims, const Axes& axes, const Dims& units = {},
               const std::vector<Segment>& segments = {}) {
  ir::Module module;
  const auto blocks = [](const WeightDecl&) {
    const Quantization quantization{DType::kF8E4M3FN, 128, false, false, DType::kF32, 128};
    return WeightFormat{DType::kF8E4M3FN, Encoding::kDense, quantization};
  };
  const parallel::Layout layout(parallel::Mesh({{parallel::kTensorAxis, 2}}),
                                parallel::find_strategy("tensor"));
  Context context(&module.add_function(), {}, DType::kBF16, blocks, layout);
  WeightDecl decl;
  decl.names = {"weight"};
  decl.dims = dims;
  decl.axes = axes;
  decl.units = units;
  decl.segments = segments;
  return context.matrix(std::move(decl)).scales.dims();
}

TEST(WeightsOfBlocks, RowsShareTheirScalesAsFarAsADeviceHasThem) {
  EXPECT_EQ(scales_of({512, 256}, {"mlp", "embed"}), (Dims{2, 2}));
  EXPECT_EQ(scales_of({256, 512}, {"embed", "mlp"}), (Dims{2, 2}));
  // Half a block, which holds scales twice.
  EXPECT_EQ(scales_of({384, 384}, {"mlp", "embed"}), (Dims{3, 3}));
  EXPECT_EQ(scales_of({256, 384}, {"embed", "mlp"}), (Dims{2, 3}));
  // Three heads of 192 rows for each device.
  EXPECT_EQ(scales_of({1152, 256}, {"heads", "embed"}, {6}), (Dims{9, 2}));
  // A device's 136 rows are no blocks: each has scales.
  EXPECT_EQ(scales_of({272, 256}, {"mlp", "embed"}), (Dims{136, 2}));
  EXPECT_EQ(scales_of({3, 512, 256}, {"experts", "expert_mlp", "embed"}), (Dims{3, 2, 2}));
}

// A device's rows of one matrix are not beside those of the next in the checkpoint.
TEST(WeightsOfBlocks, RowsOfMatricesThatAreStoredAsOneShareNoScales) {
  const auto fused = [](int64_t first, int64_t second) {
    return scales_of({first + second, 256}, {"", "embed"}, {}, {{first, "mlp"}, {second, "mlp"}});
  };
  EXPECT_EQ(fused(512, 256), (Dims{3, 2}));
  EXPECT_EQ(fused(512, 128), (Dims{5, 2}));
  EXPECT_EQ(fused(512, 48), (Dims{280, 2}));
}

// A TPU has no f16, and reads experts' scales in a kernel.
TEST(WeightsOfGroups, ExpertsScalesOfF16AreF32OnTpu) {
  const auto groups = [](const WeightDecl&) {
    const Quantization quantization{DType::kS4, 32, true, false, DType::kF16};
    return WeightFormat{DType::kS4, Encoding::kDense, quantization};
  };
  const auto types = [&](kernels::Platform platform, Dims dims, Axes axes) {
    ir::Module module;
    kernels::Target target;
    target.platform = platform;
    Context context(&module.add_function(), target, DType::kBF16, groups);
    WeightDecl decl;
    decl.names = {"weight"};
    decl.dims = std::move(dims);
    decl.axes = std::move(axes);
    const kernels::WeightOperand operand = context.matrix(std::move(decl));
    return std::pair(operand.scales.dtype(), operand.zero_points.dtype());
  };
  const Axes experts = {"experts", "expert_mlp", "embed"};
  EXPECT_EQ(types(kernels::Platform::kTpu, {2, 128, 64}, experts),
            std::pair(DType::kF32, DType::kF32));
  EXPECT_EQ(types(kernels::Platform::kCpu, {2, 128, 64}, experts),
            std::pair(DType::kF16, DType::kBF16));
  EXPECT_EQ(types(kernels::Platform::kTpu, {128, 64}, {"mlp", "embed"}),
            std::pair(DType::kF16, DType::kBF16));
}

// A device's columns are whole groups of the argument [groups, group, out].
TEST(WeightsOfGroups, AreDividedByGroupsOrRows) {
  const parallel::Layout layout(parallel::Mesh({{parallel::kTensorAxis, 2}}),
                                parallel::find_strategy("tensor"));
  int64_t group = 128;
  const auto groups = [&](const WeightDecl&) {
    const Quantization quantization{DType::kS4, group, false, false, DType::kBF16};
    return WeightFormat{DType::kS4, Encoding::kDense, quantization};
  };
  const auto declared = [&](const Dims& dims, const Axes& axes, int64_t wanted = 128) {
    group = wanted;
    ir::Module module;
    Context context(&module.add_function(), {}, DType::kBF16, groups, layout);
    WeightDecl decl;
    decl.names = {"weight"};
    decl.dims = dims;
    decl.axes = axes;
    context.matrix(std::move(decl));
    const WeightDecl& values = context.weights().at(0);
    Dims parts;
    for (const auto& division : argument_placement(values, layout.mesh())) {
      parts.push_back(division.parts);
    }
    return std::pair(argument_shape(values).dims, parts);
  };
  EXPECT_EQ(declared({512, 256}, {"mlp", "embed"}),
            std::pair(Dims({2, 128, 256}), Dims({1, 1, 2})));
  EXPECT_EQ(declared({256, 512}, {"embed", "mlp"}),
            std::pair(Dims({2, 128, 256}), Dims({2, 1, 1})));
  // Groups of 16 lie four by four, as far as a device's number of them allows, where its 192 rows
  // are no tiles.
  EXPECT_EQ(declared({192, 256}, {"embed", "mlp"}, 16),
            std::pair(Dims({2, 64, 192}), Dims({2, 1, 1})));
  EXPECT_EQ(declared({192, 288}, {"embed", "mlp"}, 16),
            std::pair(Dims({3, 48, 192}), Dims({2, 1, 1})));
  EXPECT_EQ(declared({256, 256}, {"embed", "mlp"}, 16),
            std::pair(Dims({8, 16, 256}), Dims({2, 1, 1})));
  // Half of 384 columns is no multiple of 128.
  EXPECT_EQ(declared({256, 384}, {"embed", "mlp"}), std::pair(Dims({3, 64, 256}), Dims({2, 1, 1})));
  EXPECT_EQ(declared({3, 64, 256}, {"experts", "expert_mlp", "embed"}),
            std::pair(Dims({3, 2, 128, 32}), Dims({1, 1, 1, 2})));
}

}  // namespace
}  // namespace ttpu::nn
