#include "ttpu/plan/gpus.h"

#include <gtest/gtest.h>

#include "ttpu/base/error.h"

namespace ttpu::plan {
namespace {

TEST(Gpus, HaveLimitsOfTheRightOrder) {
  for (const Gpu& gpu : gpus()) {
    EXPECT_GT(gpu.chip.bf16_flops, 1e14) << gpu.kind;
    EXPECT_GE(gpu.chip.int8_ops, gpu.chip.bf16_flops) << gpu.kind;
    EXPECT_GE(gpu.chip.hbm_bytes, int64_t{80'000'000'000}) << gpu.kind;
    EXPECT_GT(gpu.chip.hbm_bandwidth, gpu.chip.ici_bandwidth) << gpu.kind;
    // Multiply-adds of all units a second: below what the matrix units do.
    EXPECT_LT(2e9 * gpu.clock_ghz * static_cast<double>(gpu.multiprocessors * gpu.fp32_units),
              gpu.chip.bf16_flops)
        << gpu.kind;
  }
}

TEST(Gpus, ATopologyIsANameAndANumber) {
  EXPECT_EQ(gpu_of_topology("h100:8")->kind, "NVIDIA H100 80GB HBM3");
  EXPECT_EQ(gpus_of_topology("h100:8"), 8);
  EXPECT_EQ(gpus_of_topology("b200"), 1);
  EXPECT_EQ(gpu_of_topology("v5e:2x2"), nullptr);
  EXPECT_EQ(gpu_of_topology("h1000"), nullptr);
  for (const char* wrong : {"h100:", "h100:0", "h100:-1", "h100:2x2", "h100:8 ", "h100:99999"}) {
    try {
      gpus_of_topology(wrong);
      FAIL() << wrong;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kInvalidArgument);
      EXPECT_NE(std::string(error.what()).find("GPU:NUMBER"), std::string::npos);
    }
  }
}

TEST(Gpus, ADeviceOfAnyTopologyHasMemory) {
  EXPECT_EQ(device_of_topology("h200:2").hbm_bytes, int64_t{141'000'000'000});
  EXPECT_EQ(device_of_topology("v5e:2x2").name, "v5e");
}

TEST(Gpus, WhatIsPricedForTpusAloneRefusesThem) {
  try {
    chip_of_topology("h100:8");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kInvalidArgument);
    EXPECT_NE(std::string(error.what()).find("ttpu compile"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace ttpu::plan
