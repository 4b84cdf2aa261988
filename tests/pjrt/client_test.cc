#include "ttpu/pjrt/client.h"

#include <gtest/gtest.h>

namespace ttpu::pjrt {
namespace {
TEST(Client, RunsTextStableHlo) {
  const Client client = Client::create(load_plugin(find_plugin("cpu")));
  const LoadedExecutable program = client.compile(R"(
module @add {
  func.func @main(%a: tensor<2x3xf32>, %b: tensor<2x3xf32>) -> tensor<2x3xf32> {
    %0 = stablehlo.add %a, %b : tensor<2x3xf32>
    return %0 : tensor<2x3xf32>
  }
})");
  const std::vector<float> a = {1, 2, 3, 4, 5, 6};
  const Buffer x = client.to_device(a.data(), Shape(DType::kF32, {2, 3}));
  const std::vector<Buffer> results = program.execute(std::vector<const Buffer*>{&x, &x});
  ASSERT_EQ(results.size(), 1u);
  EXPECT_EQ(results[0].to_vector<float>(), (std::vector<float>{2, 4, 6, 8, 10, 12}));
}
}  // namespace
}  // namespace ttpu::pjrt
