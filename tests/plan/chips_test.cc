#include "ttpu/plan/chips.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "ttpu/base/error.h"

namespace ttpu::plan {
namespace {

TEST(Chips, ATopologyNamesItsChip) {
  EXPECT_EQ(chip_of_topology("v5e:2x2").name, "v5e");
  EXPECT_EQ(chip_of_topology("tpu7x:2x2x1").name, "tpu7x");
  EXPECT_EQ(chip_of_topology("v5p").name, "v5p");
}

TEST(Chips, EveryChipIsWhole) {
  ASSERT_EQ(chips().size(), 5U);
  for (const Chip& chip : chips()) {
    EXPECT_GT(chip.bf16_flops, 1e14) << chip.name;
    EXPECT_GE(std::max(chip.int8_ops, chip.fp8_flops), chip.bf16_flops) << chip.name;
    EXPECT_GE(chip.hbm_bytes, int64_t{16} << 30) << chip.name;
    EXPECT_GT(chip.hbm_bandwidth, chip.ici_bandwidth) << chip.name;
    EXPECT_GT(chip.ici_bandwidth, 0) << chip.name;
  }
}

TEST(Chips, AnUnknownChipListsTheKnownOnes) {
  try {
    chip_of_topology("v9:2x2");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kInvalidArgument);
    EXPECT_NE(std::string(error.what()).find("v4, v5e, v5p, v6e, tpu7x"), std::string::npos);
  }
}

}  // namespace
}  // namespace ttpu::plan
