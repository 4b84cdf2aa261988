#include "ttpu/plan/cost.h"

#include <gtest/gtest.h>

#include "ttpu/base/error.h"
#include "ttpu/ir/ir.h"

namespace ttpu::plan {
namespace {

TEST(Cost, CountsTwoFlopsForEachProductOfAMatrixProduct) {
  ir::Module module;
  ir::Function& f = module.add_function();
  const ir::Value x = f.add_argument({DType::kBF16, {8, 64}});
  const ir::Value w = f.add_argument({DType::kBF16, {64, 32}});
  f.set_results({ir::matmul(x, w)});
  const ArgumentRole roles[] = {ArgumentRole::kInput, ArgumentRole::kWeight};
  const ProgramCost cost = program_cost(f, roles);
  EXPECT_EQ(cost.flops, 2.0 * 8 * 64 * 32);
  EXPECT_EQ(cost.weight_bytes, 64 * 32 * 2);
  EXPECT_EQ(cost.uncounted_loops, 0);
}

TEST(Cost, CountsOfACacheWhatIsPutInAndWhatIsTaken) {
  ir::Module module;
  ir::Function& f = module.add_function();
  const ir::Value cache = f.add_argument({DType::kF32, {100, 16}});
  const ir::Value row = f.add_argument({DType::kF32, {1, 16}});
  const ir::Value at = f.add_argument({DType::kS32, {}});
  const ir::Value updated = ir::dynamic_update_slice(cache, row, {at, at});
  const ir::Value taken = ir::slice(updated, {0, 0}, {10, 16}, {1, 1});
  f.set_results({updated, ir::negate(taken)});
  const ArgumentRole roles[] = {ArgumentRole::kCache, ArgumentRole::kInput, ArgumentRole::kInput};
  const ProgramCost cost = program_cost(f, roles);
  EXPECT_EQ(cost.cache_written_bytes, 1 * 16 * 4);
  EXPECT_EQ(cost.cache_read_bytes, 10 * 16 * 4);
}

TEST(Cost, AFunctionGivenAsTextCostsWhatItSays) {
  ir::Module module;
  ir::Function& given = module.add_function("attention");
  const Shape cache_shape(DType::kF32, {100, 16});
  given.add_argument(cache_shape);
  given.add_argument({DType::kF32, {1, 16}});
  given.set_text({"", 1000, {{0, 0, 640, 64}}}, {cache_shape});
  ir::Function& f = module.add_function();
  const ir::Value cache = f.add_argument(cache_shape);
  const ir::Value row = f.add_argument({DType::kF32, {1, 16}});
  const ir::Value once = ir::call(given, {cache, row})[0];
  f.set_results({ir::call(given, {once, row})[0]});
  const ArgumentRole roles[] = {ArgumentRole::kCache, ArgumentRole::kInput};
  const ProgramCost cost = program_cost(f, roles);
  EXPECT_EQ(cost.flops, 2000);
  EXPECT_EQ(cost.cache_read_bytes, 2 * 640);
  EXPECT_EQ(cost.cache_written_bytes, 2 * 64);
}

TEST(Cost, ATableThatIsAlsoMultipliedIsReadOnceInFull) {
  ir::Module module;
  ir::Function& f = module.add_function();
  const ir::Value table = f.add_argument({DType::kF32, {50, 8}});
  const ir::Value x = f.add_argument({DType::kF32, {4, 50}});
  const ir::Value rows = ir::slice(table, {0, 0}, {2, 8}, {1, 1});
  f.set_results({rows, ir::matmul(x, table)});
  const ArgumentRole roles[] = {ArgumentRole::kWeight, ArgumentRole::kInput};
  EXPECT_EQ(program_cost(f, roles).weight_bytes, 50 * 8 * 4);
}

// Adds `count` to x in steps: what is multiplied each turn, and what a turn reads, counts as often.
TEST(Cost, WhatALoopDoesIsMultipliedByItsTurns) {
  ir::Module module;
  ir::Function& f = module.add_function();
  const ir::Value x = f.add_argument({DType::kF32, {4, 8}});
  const ir::Value stacked = f.add_argument({DType::kF32, {6, 8, 8}});
  const ir::Value whole = f.add_argument({DType::kF32, {8, 8}});
  const ir::Value zero = ir::scalar(f, DType::kS32, 0);
  const auto more = [](const ir::Values& v) {
    return ir::compare(v[0], ir::scalar_like(v[0], 11), ir::ComparisonDirection::kLt);
  };
  const auto turn = [&](const ir::Values& v) -> ir::Values {
    const ir::Value w = ir::dynamic_slice(stacked, {zero, zero, zero}, {1, 8, 8});
    return {v[0] + 2.0, ir::matmul(ir::matmul(v[1], ir::reshape(w, {8, 8})), whole)};
  };
  f.set_results({ir::while_loop({zero, x}, more, turn)[1]});
  const ArgumentRole roles[] = {ArgumentRole::kInput, ArgumentRole::kWeight, ArgumentRole::kCache};
  const ProgramCost cost = program_cost(f, roles);
  constexpr double kTurns = 6;  // 0, 2, 4, 6, 8, 10
  EXPECT_EQ(cost.flops, kTurns * 2 * (2.0 * 4 * 8 * 8));
  EXPECT_EQ(cost.weight_bytes, kTurns * 8 * 8 * 4);
  EXPECT_EQ(cost.cache_read_bytes, kTurns * 8 * 8 * 4);
  EXPECT_EQ(cost.uncounted_loops, 0);
}

TEST(Cost, ALoopThatDoesNotCountIsReported) {
  ir::Module module;
  ir::Function& f = module.add_function();
  const ir::Value x = f.add_argument({DType::kF32, {}});
  const auto more = [](const ir::Values& v) {
    return ir::compare(v[0], ir::scalar_like(v[0], 1), ir::ComparisonDirection::kLt);
  };
  const auto turn = [](const ir::Values& v) -> ir::Values { return {v[0] + v[0]}; };
  f.set_results(ir::while_loop({x}, more, turn));
  const ArgumentRole roles[] = {ArgumentRole::kInput};
  EXPECT_EQ(program_cost(f, roles).uncounted_loops, 1);
}

TEST(Cost, RolesMustBeAsManyAsArguments) {
  ir::Module module;
  ir::Function& f = module.add_function();
  const ir::Value x = f.add_argument({DType::kF32, {1}});
  f.set_results({x});
  EXPECT_THROW(program_cost(f, {}), Error);
}

TEST(Estimate, ProductsOfSmallNumbersHavePeaksOfTheirOwn) {
  Chip chip;
  chip.bf16_flops = 100;
  chip.int8_ops = 200;
  EXPECT_EQ((Compute{100, 100, 100}.seconds(chip)), 1 + 0.5 + 1);  // no peak of fp8: as bf16
}

TEST(Estimate, TheLongestTimeIsTheBound) {
  Chip chip;
  chip.bf16_flops = 100;
  chip.hbm_bandwidth = 10;
  chip.ici_bandwidth = 1;
  EXPECT_EQ(estimate_step(chip, {1000}, 10, 1).bound, "compute");
  EXPECT_EQ(estimate_step(chip, {1000}, 10, 1).seconds, 10);
  EXPECT_EQ(estimate_step(chip, {100}, 1000, 1).bound, "HBM");
  EXPECT_EQ(estimate_step(chip, {100}, 1000, 1).seconds, 100);
  EXPECT_EQ(estimate_step(chip, {100}, 10, 50).bound, "interconnect");
}

}  // namespace
}  // namespace ttpu::plan
