#include "ttpu/io/quantized_matrix.h"

#include <cmath>
#include <random>

#include <gtest/gtest.h>

#include "ttpu/base/error.h"

namespace ttpu::io {
namespace {

constexpr int64_t kRows = 7;
constexpr int64_t kColumns = 256;

std::vector<float> random_numbers() {
  std::mt19937 rng(3);
  std::normal_distribution<float> normal(0, 0.02F);
  std::vector<float> numbers(kRows * kColumns);
  for (float& number : numbers) number = normal(rng);
  return numbers;
}

double squared_error(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double error = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    sum += error * error;
  }
  return sum;
}

TEST(QuantizeRows, Int8IsOffByHalfAStepAndUsesTheWholeRange) {
  const std::vector<float> numbers = random_numbers();
  const QuantizedRows rows =
      quantize_rows(numbers.data(), kRows, kColumns, parse_quantization("int8"));
  ASSERT_EQ(rows.groups, 1);
  const std::vector<float> back = rows.numbers(DType::kS8);
  for (size_t r = 0; r < kRows; ++r) {
    int most = 0;
    for (size_t c = 0; c < kColumns; ++c) {
      const size_t i = r * kColumns + c;
      most = std::max(most, std::abs(int{rows.values[i]}));
      EXPECT_LE(std::abs(back[i] - numbers[i]), rows.scales[r] * 0.5001F);
    }
    EXPECT_EQ(most, 127);
  }
}

TEST(QuantizeRows, Fp8KeepsThreeBitsOfEachNumber) {
  const std::vector<float> numbers = random_numbers();
  const QuantizedRows rows =
      quantize_rows(numbers.data(), kRows, kColumns, parse_quantization("fp8"));
  const std::vector<float> back = rows.numbers(DType::kF8E4M3FN);
  for (size_t i = 0; i < numbers.size(); ++i) {
    const float smallest = rows.scales[i / kColumns] * 0x1p-10F;  // half of a subnormal step
    EXPECT_LE(std::abs(back[i] - numbers[i]),
              std::max(std::abs(numbers[i]) * 0x1.01p-4F, smallest));
  }
}

TEST(QuantizeRows, Int4IsBetterThanBringingTheLargestNumberToSeven) {
  const std::vector<float> numbers = random_numbers();
  const QuantizedRows rows =
      quantize_rows(numbers.data(), kRows, kColumns, parse_quantization("int4"));
  ASSERT_EQ(rows.groups, 2);
  std::vector<float> plain(numbers.size());
  for (size_t g = 0; g < kRows * 2; ++g) {
    float most = 0;
    for (size_t i = g * 128; i < (g + 1) * 128; ++i) most = std::max(most, std::abs(numbers[i]));
    for (size_t i = g * 128; i < (g + 1) * 128; ++i) {
      plain[i] = std::nearbyint(numbers[i] / (most / 7)) * (most / 7);
    }
    const float scale = rows.scales[g];
    EXPECT_EQ(f32_from_bf16(bf16_from_f32(scale)), scale) << "the argument of programs is bf16";
  }
  EXPECT_LT(squared_error(rows.numbers(DType::kS4), numbers), 0.9 * squared_error(plain, numbers));
  EXPECT_EQ(*std::min_element(rows.values.begin(), rows.values.end()), -8);
  EXPECT_LE(*std::max_element(rows.values.begin(), rows.values.end()), 7);
}

TEST(QuantizeRows, ZerosStayZeros) {
  const std::vector<float> zeros(kColumns);
  for (const char* name : {"int8", "fp8", "int4"}) {
    const Quantization form = parse_quantization(name);
    const QuantizedRows rows = quantize_rows(zeros.data(), 1, kColumns, form);
    EXPECT_EQ(rows.numbers(form.dtype), zeros) << name;
  }
}

TEST(QuantizeRows, GroupsMustDivideARow) {
  const std::vector<float> numbers(96);
  EXPECT_THROW(quantize_rows(numbers.data(), 1, 96, parse_quantization("int4")), Error);
  EXPECT_THROW(parse_quantization("int3"), Error);
}

TEST(FittingGroup, IsAPowerOfTwoOrElseTheLargestDivisor) {
  EXPECT_EQ(fitting_group(128, 4096), 128);
  EXPECT_EQ(fitting_group(128, 576), 64);
  EXPECT_EQ(fitting_group(128, 100), 100);
  EXPECT_EQ(fitting_group(128, 13), 13);
  EXPECT_EQ(fitting_group(0, 4096), 0);
}

}  // namespace
}  // namespace ttpu::io
