#include "ttpu/base/dtype.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "ttpu/base/error.h"

namespace ttpu {
namespace {

TEST(DTypeTest, EveryNameParsesBackToItsType) {
  for (int i = 0; i <= static_cast<int>(DType::kF64); ++i) {
    const auto dtype = static_cast<DType>(i);
    EXPECT_EQ(parse_dtype(dtype_name(dtype)), dtype);
  }
  EXPECT_THROW(parse_dtype("float99"), Error);
}

TEST(DTypeTest, SmallFloatsRoundTripEveryBitPattern) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    if (!std::isnan(f32_from_f16(half))) {
      EXPECT_EQ(f16_from_f32(f32_from_f16(half)), half);
    }
    if (!std::isnan(f32_from_bf16(half))) {
      EXPECT_EQ(bf16_from_f32(f32_from_bf16(half)), half);
    }
  }
  for (uint32_t bits = 0; bits < 256; ++bits) {
    const auto byte = static_cast<uint8_t>(bits);
    if (!std::isnan(f32_from_f8e4m3fn(byte))) {
      EXPECT_EQ(f8e4m3fn_from_f32(f32_from_f8e4m3fn(byte)), byte);
    }
    if (!std::isnan(f32_from_f8e5m2(byte))) {
      EXPECT_EQ(f8e5m2_from_f32(f32_from_f8e5m2(byte)), byte);
    }
  }
}

TEST(DTypeTest, ConversionRoundsToNearestEvenAndKeepsSpecialValues) {
  EXPECT_EQ(f16_from_f32(65504.0f), 0x7bff);
  EXPECT_EQ(f16_from_f32(65520.0f), 0x7c00);    // halfway to the next power rounds to infinity
  EXPECT_EQ(f16_from_f32(0x1.002p0f), 0x3c00);  // a tie goes to the even neighbour
  EXPECT_EQ(f16_from_f32(0x1.006p0f), 0x3c02);
  EXPECT_EQ(f8e4m3fn_from_f32(448.0f), 0x7e);
  EXPECT_TRUE(std::isnan(f32_from_f8e4m3fn(f8e4m3fn_from_f32(500.0f))));
  EXPECT_TRUE(std::isnan(f32_from_bf16(bf16_from_f32(std::numeric_limits<float>::quiet_NaN()))));
  EXPECT_TRUE(std::signbit(f32_from_f16(f16_from_f32(-0.0f))));
}

}  // namespace
}  // namespace ttpu
