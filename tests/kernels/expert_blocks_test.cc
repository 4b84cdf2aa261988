// The gradient of products of many rows, each with the weight of its own expert.
#include <random>

#include "program_testing.h"
#include "ttpu/kernels/linear/expert_rows.h"

namespace ttpu::kernels {
namespace {

using Floats = std::vector<float>;

Floats random_floats(int64_t count, unsigned seed) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<float> numbers(-1, 1);
  Floats all(static_cast<size_t>(count));
  for (float& number : all) number = numbers(generator);
  return all;
}

// What a call of a function that knows its gradient gives for the cotangent of its result.
ir::Values back_through(ir::Value result, ir::Value cotangent) {
  const ir::Operation& call = *result.producer();
  const ir::Function* callee =
      result.function().module().find_function(call.attributes.get<ir::Symbol>("callee").name);
  return callee->gradient()->backward(call.operands, {result}, {cotangent});
}

TEST(ExpertBlocks, TheGradientIsThatOfEachRowsOwnExpert) {
  constexpr int64_t kRows = 600, kExperts = 5, kIn = 7, kOut = 3;
  const Floats x = random_floats(kRows * kIn, 1);
  const Floats w = random_floats(kExperts * kOut * kIn, 2);
  const Floats ct = random_floats(kRows * kOut, 3);
  std::vector<int32_t> ids;
  for (int64_t row = 0; row < kRows; ++row) {
    // Uneven, and in the first and last place numbers that are no expert's.
    ids.push_back(static_cast<int32_t>(row % 7 == 0 ? -1 : row % 11 == 0 ? kExperts : row % 3));
  }
  TestProgram program;
  const ir::Value of_x = program.argument(x, DType::kF32, {kRows, kIn});
  const ir::Value of_ids = program.argument(ids, DType::kS32, {kRows});
  WeightOperand weight;
  weight.value = program.argument(w, DType::kF32, {kExperts, kOut, kIn});
  weight.dims = weight.value.dims();
  const ir::Value of_ct = program.argument(ct, DType::kF32, {kRows, kOut});
  const ExpertRows rows({Platform::kCpu, false}, of_ids, DType::kF32, {{weight, {}}});
  const ir::Value ordered = rows.ordered(of_x);
  const ir::Value product = rows.linear(ordered, {weight, {}});
  const ir::Value y = rows.restored(product);
  const ir::Values of_product = back_through(y, of_ct);
  EXPECT_FALSE(of_product.at(1));
  const ir::Values back = back_through(product, of_product[0]);
  EXPECT_FALSE(back.at(1));
  const ir::Value back_x = back_through(ordered, back[0])[0];
  const auto results = program.run({y, back_x, back[2]});
  const Floats found = results[0].to_vector<float>();
  const Floats found_x = results[1].to_vector<float>();
  const Floats found_w = results[2].to_vector<float>();

  std::vector<double> expected_w(w.size());
  for (int64_t row = 0; row < kRows; ++row) {
    const int64_t id = ids[static_cast<size_t>(row)];
    const bool known = id >= 0 && id < kExperts;
    for (int64_t i = 0; i < kIn; ++i) {
      double sum = 0;
      for (int64_t o = 0; known && o < kOut; ++o) {
        const auto at = static_cast<size_t>((id * kOut + o) * kIn + i);
        const double given = ct[static_cast<size_t>(row * kOut + o)];
        sum += given * w[at];
        expected_w[at] += given * x[static_cast<size_t>(row * kIn + i)];
      }
      EXPECT_NEAR(found_x[static_cast<size_t>(row * kIn + i)], sum, 1e-5) << row;
    }
    for (int64_t o = 0; o < kOut; ++o) {
      double sum = 0;
      for (int64_t i = 0; known && i < kIn; ++i) {
        sum += x[static_cast<size_t>(row * kIn + i)] *
               w[static_cast<size_t>((id * kOut + o) * kIn + i)];
      }
      EXPECT_NEAR(found[static_cast<size_t>(row * kOut + o)], sum, 1e-5) << row;
    }
  }
  for (size_t i = 0; i < w.size(); ++i) EXPECT_NEAR(found_w[i], expected_w[i], 1e-4) << i;
}

}  // namespace
}  // namespace ttpu::kernels
