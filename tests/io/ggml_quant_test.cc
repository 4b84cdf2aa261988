#include "ttpu/io/ggml_quant.h"

#include <cmath>

#include <rapidcheck.h>

#include "testing.h"
#include "ttpu/io/quantized_matrix.h"
#include "ttpu/io/safetensors.h"

namespace ttpu::io {
namespace {

constexpr Encoding kAll[] = {Encoding::kQ4_0, Encoding::kQ4_1, Encoding::kQ5_0, Encoding::kQ5_1,
                             Encoding::kQ8_0, Encoding::kQ2_K, Encoding::kQ3_K, Encoding::kQ4_K,
                             Encoding::kQ5_K, Encoding::kQ6_K};

class Fixture {
 public:
  Fixture()
      : file_(std::filesystem::path(TTPU_SOURCE_DIR) / "tests/fixtures/ggml_quants.safetensors"),
        contents_(read_safetensors(file_)) {}
  std::span<const std::byte> bytes(Encoding encoding, std::string_view part) const {
    const std::string name = fmt::format("{}.{}", encoding_name(encoding), part);
    for (const Tensor& tensor : contents_.tensors) {
      if (tensor.name == name) return tensor.bytes;
    }
    ADD_FAILURE() << name;
    return {};
  }

 private:
  MappedFile file_;
  Safetensors contents_;
};

TEST(GgmlQuantTest, ValuesEqualTheGgufPackagesToTheBit) {
  const Fixture fixture;
  for (const Encoding encoding : kAll) {
    const auto blocks = fixture.bytes(encoding, "blocks");
    const auto expected = fixture.bytes(encoding, "values");
    std::vector<float> values(expected.size() / sizeof(float));
    dequantize_row(encoding, blocks.data(), static_cast<int64_t>(values.size()), values.data());
    EXPECT_EQ(std::memcmp(values.data(), expected.data(), expected.size()), 0)
        << encoding_name(encoding);
  }
}

// For devices without a kernel for blocks.
TEST(GgmlQuantTest, ValuesAndFactorsApartAreTheSameNumbers) {
  const Fixture fixture;
  for (const Encoding encoding : kAll) {
    Tensor tensor;
    tensor.name = encoding_name(encoding);
    tensor.encoding = encoding;
    tensor.bytes = fixture.bytes(encoding, "blocks");
    const auto blocks = static_cast<int64_t>(tensor.bytes.size()) / block_bytes(encoding);
    tensor.dims = {blocks, block_elements(encoding)};
    const QuantizedRows rows = rows_of_blocks(tensor, 0, blocks);
    const Quantization form = groups_of(encoding);
    EXPECT_EQ(rows.columns, rows.groups * form.group);
    EXPECT_EQ(rows.zero_points.empty(), !form.zero_points);
    const std::vector<float> numbers = rows.numbers(form.dtype);
    std::vector<float> expected(numbers.size());
    dequantize_row(encoding, tensor.bytes.data(), tensor.num_elements(), expected.data());
    for (size_t i = 0; i < numbers.size(); ++i) {
      const int most = form.dtype == DType::kS4 ? 7 : 127;
      ASSERT_LE(rows.values[i], most);
      ASSERT_GE(rows.values[i], -most - 1);
      ASSERT_NEAR(numbers[i], expected[i], 4e-6F * (1 + std::fabs(expected[i])))
          << encoding_name(encoding) << " " << i;
    }
  }
}

// A scale of zero leaves the minimum.
TEST(GgmlQuantTest, GroupsOfOneNumberStayIt) {
  std::vector<std::byte> block(static_cast<size_t>(block_bytes(Encoding::kQ4_1)), std::byte{0x35});
  const uint16_t bits[] = {0, f16_from_f32(-1.5F)};
  std::memcpy(block.data(), bits, sizeof(bits));
  Tensor tensor;
  tensor.encoding = Encoding::kQ4_1;
  tensor.bytes = block;
  tensor.dims = {1, 32};
  EXPECT_EQ(rows_of_blocks(tensor, 0, 1).numbers(DType::kS4), std::vector<float>(32, -1.5F));
}

TEST(GgmlQuantTest, BlocksEqualTheGgufPackagesToTheBit) {
  const Fixture fixture;
  for (const Encoding encoding : {Encoding::kQ4_0, Encoding::kQ4_1, Encoding::kQ8_0}) {
    const auto input = fixture.bytes(encoding, "input");
    const auto expected = fixture.bytes(encoding, "output");
    std::vector<std::byte> blocks(expected.size());
    quantize_row(encoding, reinterpret_cast<const float*>(input.data()),
                 static_cast<int64_t>(input.size() / sizeof(float)), blocks.data());
    EXPECT_EQ(std::memcmp(blocks.data(), expected.data(), expected.size()), 0)
        << encoding_name(encoding);
  }
}

TEST(GgmlQuantTest, RoundingErrorStaysWithinHalfAStep) {
  EXPECT_TRUE(rc::check("Q8_0", [](const std::array<int16_t, 32>& integers) {
    float largest = 0;
    float values[32];
    for (size_t i = 0; i < 32; ++i) {
      values[i] = static_cast<float>(integers[i]) / 64;
      largest = std::max(largest, std::fabs(values[i]));
    }
    std::byte block[34];
    quantize_row(Encoding::kQ8_0, values, 32, block);
    float back[32];
    dequantize_row(Encoding::kQ8_0, block, 32, back);
    // Half a step, and what the f16 scale loses on 127 steps.
    for (size_t i = 0; i < 32; ++i) RC_ASSERT(std::fabs(back[i] - values[i]) <= largest / 200);
  }));
}

TEST(GgmlQuantTest, AnyBytesAreBlocks) {
  for (const Encoding encoding : kAll) {
    const std::vector<std::byte> ones(static_cast<size_t>(block_bytes(encoding)), std::byte{0xff});
    std::vector<float> values(static_cast<size_t>(block_elements(encoding)));
    dequantize_row(encoding, ones.data(), block_elements(encoding), values.data());
    EXPECT_TRUE(std::isnan(values[0])) << encoding_name(encoding);  // the scale's bits are a NaN
    EXPECT_THROW(dequantize_row(encoding, ones.data(), 31, values.data()), Error);
  }
  EXPECT_THROW(dequantize_row(Encoding::kDense, nullptr, 0, nullptr), Error);
  EXPECT_THROW(quantize_row(Encoding::kQ6_K, nullptr, 256, nullptr), Error);
}

TEST(GgmlQuantTest, FastHalfConversionIsTheBases) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const float fast = fast_f32_from_f16(half);
    const float slow = f32_from_f16(half);
    if (std::isnan(slow)) {
      EXPECT_TRUE(std::isnan(fast));
    } else {
      EXPECT_EQ(std::bit_cast<uint32_t>(fast), std::bit_cast<uint32_t>(slow));
    }
  }
}

}  // namespace
}  // namespace ttpu::io
