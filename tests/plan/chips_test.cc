#include "ttpu/plan/chips.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "tests/support/error_of.h"

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

TEST(Slices, HaveADimensionForEachPairOfLinks) {
  EXPECT_EQ(parse_slice("v5e:2x4").devices(), 8);
  EXPECT_EQ(parse_slice("tpu7x:2x2x1").devices(), 8);  // two devices a chip
  for (const char* wrong :
       {"v5e:2x2x1", "v5p:2x2", "v5e", "v5e:", "v5e:2x", "v5e:2x-1", "v5e:0x2"}) {
    try {
      parse_slice(wrong);
      FAIL() << wrong;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kInvalidArgument);
      EXPECT_NE(std::string(error.what()).find("known are"), std::string::npos) << error.what();
    }
  }
}

TEST(Slices, ThatDoNotExistAreRefusedWithThoseThatDo) {
  for (const char* good :
       {"v5e:1x2", "v5e:4x2", "v5e:8x16", "v6e:16x16", "v4:2x2x1", "v5p:1x2x2", "v5p:2x4x4",
        "v5p:4x4x12", "v5p:24x16x16", "v4:16x16x16", "tpu7x:1x1x1", "tpu7x:16x24x24"}) {
    EXPECT_EQ(parse_slice(good).name, good);
  }
  for (const char* bad : {"v5e:3x3", "v5e:2x3", "v5e:5x7", "v5e:16x32", "v5e:16x8", "v6e:32x32",
                          "v5p:3x3x3", "v5p:2x2x8", "v5p:6x6x6", "v5p:4x4x512", "v4:16x16x20"}) {
    const std::string error = error_of([&] { parse_slice(bad); }, Code::kInvalidArgument);
    EXPECT_NE(error.find(bad), std::string::npos) << error;
    EXPECT_NE(error.find("known are v"), std::string::npos) << error;
  }
  EXPECT_NE(error_of([] { parse_slice("v5p:6x6x6"); }, Code::kInvalidArgument)
                .find("multiples of 4, up to 16x16x24"),
            std::string::npos);
}

TEST(Slices, KnownOnesAreRead) {
  for (const Chip& chip : chips()) {
    int64_t before = 0;
    for (const std::string& name : known_slices(chip)) {
      EXPECT_GT(parse_slice(name).devices(), before) << name;
      before = parse_slice(name).devices();
    }
  }
}

TEST(Slices, SendOverTheLinksThatAreThere) {
  // 50 GB/s a link: one in each dimension of 2 x 4, two where 16 chips make a ring.
  EXPECT_EQ(parse_slice("v5e:2x4").ici_bandwidth(8), 100e9);
  EXPECT_EQ(parse_slice("v5e:16x16").ici_bandwidth(256), 200e9);
  EXPECT_EQ(parse_slice("v5e:2x4").ici_bandwidth(2), 50e9);
  EXPECT_EQ(parse_slice("v5p:2x2x1").ici_bandwidth(4), 200e9);
  EXPECT_EQ(parse_slice("v5p:4x4x4").ici_bandwidth(64), 600e9);
}

}  // namespace
}  // namespace ttpu::plan
