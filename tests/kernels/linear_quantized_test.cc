// Products with quantized weights, in StableHLO: i8, f8 and i4 values with scales.
#include <cmath>
#include <random>

#include <gtest/gtest.h>

#include "tests/kernels/program_testing.h"
#include "ttpu/base/error.h"
#include "ttpu/kernels/linear/linear.h"

namespace ttpu::kernels {
namespace {

constexpr int64_t kIn = 256;
constexpr int64_t kOut = 24;
constexpr int64_t kGroup = 64;
constexpr int64_t kBlock = 8;

struct Numbers {
  std::vector<int8_t> values;  // a byte each
  std::vector<float> scales, zero_points;
  std::vector<float> dense;
};

float value_of(int8_t byte, DType dtype) {
  const auto bits = static_cast<uint8_t>(byte);
  if (dtype == DType::kF8E4M3FN) return f32_from_f8e4m3fn(bits);
  return dtype == DType::kF4E2M1FN ? f32_from_f4e2m1fn(bits) : static_cast<float>(byte);
}

// `block` rows share the scales of their groups.
Numbers make_weight(int64_t rows, DType dtype, int64_t group, int64_t block, bool zero_points) {
  std::mt19937 rng(5);
  std::uniform_real_distribution<float> real(-1, 1);
  Numbers w;
  for (int64_t i = 0; i < rows / block * kIn / group; ++i) {
    w.scales.push_back(f32_from_bf16(bf16_from_f32(0.01F * (1.5F + real(rng)))));
    if (zero_points) w.zero_points.push_back(std::floor(8 * real(rng)));
  }
  for (int64_t i = 0; i < rows * kIn; ++i) {
    const float x = real(rng);
    int8_t byte = static_cast<int8_t>(x * (dtype == DType::kS4 ? 7.9F : 127.0F));
    if (dtype == DType::kF8E4M3FN) byte = static_cast<int8_t>(f8e4m3fn_from_f32(x * 448));
    if (dtype == DType::kF4E2M1FN) byte = static_cast<int8_t>(static_cast<int>(x * 7.9F) & 15);
    w.values.push_back(byte);
    const auto g = static_cast<size_t>(i / kIn / block * (kIn / group) + i % kIn / group);
    w.dense.push_back((value_of(byte, dtype) - (zero_points ? w.zero_points[g] : 0)) * w.scales[g]);
  }
  return w;
}

std::vector<uint16_t> as_bf16(const std::vector<float>& numbers) {
  std::vector<uint16_t> bits;
  for (const float number : numbers) bits.push_back(bf16_from_f32(number));
  return bits;
}

std::vector<uint8_t> packed(const std::vector<int8_t>& values) {
  std::vector<uint8_t> bytes;
  for (size_t i = 0; i < values.size(); i += 2) {
    bytes.push_back(static_cast<uint8_t>((values[i] & 15) | (values[i + 1] & 15) << 4));
  }
  return bytes;
}

// [.., out, in] to [.., in, out].
std::vector<int8_t> by_columns(const std::vector<int8_t>& values, const Dims& dims) {
  const auto in = static_cast<size_t>(dims.back());
  const auto out = static_cast<size_t>(dims[dims.size() - 2]);
  std::vector<int8_t> result;
  for (size_t matrix = 0; matrix < values.size(); matrix += in * out) {
    for (size_t column = 0; column < in; ++column) {
      for (size_t row = 0; row < out; ++row) result.push_back(values[matrix + row * in + column]);
    }
  }
  return result;
}

WeightOperand operand_of(TestProgram& program, const Numbers& w, DType dtype, Dims dims,
                         int64_t group, int64_t block) {
  const bool groups = group != kIn && block == 1;
  const std::vector<int8_t> values = groups ? by_columns(w.values, dims) : w.values;
  const Dims stored = groups ? dims_by_groups(dims, kIn / group) : dims;
  WeightOperand operand;
  operand.value = bit_width(dtype) == 4 ? program.argument(packed(values), dtype, stored)
                                        : program.argument(values, dtype, stored);
  operand.dims = dims;
  if (group == kIn) {
    dims.pop_back();
    operand.scales = program.argument(w.scales, DType::kF32, dims);
    return operand;
  }
  dims.back() = kIn / group;
  dims[dims.size() - 2] /= block;
  operand.scales = program.argument(as_bf16(w.scales), DType::kBF16, dims);
  if (!w.zero_points.empty()) {
    operand.zero_points = program.argument(as_bf16(w.zero_points), DType::kBF16, dims);
  }
  return operand;
}

std::vector<float> make_rows(int64_t rows) {
  std::mt19937 rng(7);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<size_t>(rows * kIn));
  for (float& number : x) number = normal(rng);
  std::fill_n(x.begin(), kIn, 0.0F);  // a row of zeros stays one
  return x;
}

// Rows rounded as products of low precision take them.
std::vector<float> rounded_rows(const std::vector<float>& x, DType dtype) {
  std::vector<float> result;
  for (size_t begin = 0; begin < x.size(); begin += kIn) {
    float most = 0;
    for (size_t i = begin; i < begin + kIn; ++i) most = std::max(most, std::abs(x[i]));
    const float scale = most / (dtype == DType::kS8 ? 127 : 448);
    for (size_t i = begin; i < begin + kIn; ++i) {
      const float scaled = scale == 0 ? 0 : x[i] / scale;
      const float value =
          dtype == DType::kS8
              ? std::nearbyint(scaled)
              : f32_from_f8e4m3fn(f8e4m3fn_from_f32(std::clamp(scaled, -448.0F, 448.0F)));
      result.push_back(value * scale);
    }
  }
  return result;
}

double expected(const float* x, const float* w) {
  double sum = 0;
  for (int64_t i = 0; i < kIn; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(w[i]);
  return sum;
}

double norm(const float* x, const float* w) {
  double sum = 0;
  for (int64_t i = 0; i < kIn; ++i) {
    sum += std::abs(static_cast<double>(x[i]) * static_cast<double>(w[i]));
  }
  return sum;
}

struct Form {
  DType dtype;
  int64_t group;
  bool zero_points;
  bool activations;
  int64_t block = 1;
  Platform platform = Platform::kCpu;  // whose plain program it is
};

class LinearQuantized : public testing::TestWithParam<Form> {};

// Of x [rows, in] as `dtype`; `bound`: of the sum of all products' magnitudes.
void expect_product(const Form& form, int64_t rows, DType x_dtype, double bound) {
  const auto [dtype, group, zero_points, activations, block, platform] = form;
  const Numbers w = make_weight(kOut, dtype, group, block, zero_points);
  std::vector<float> x = make_rows(rows);
  const std::vector<uint16_t> bits = as_bf16(x);
  TestProgram program;
  ir::Value input;
  if (x_dtype == DType::kBF16) {
    input = program.argument(bits, x_dtype, {rows, kIn});
    for (size_t i = 0; i < x.size(); ++i) x[i] = f32_from_bf16(bits[i]);
  } else {
    input = program.argument(x, x_dtype, {rows, kIn});
  }
  const std::vector<float> seen = activations ? rounded_rows(x, dtype) : x;
  WeightOperand operand = operand_of(program, w, dtype, {kOut, kIn}, group, block);
  operand.quantize_activations = activations;
  const ir::Value product =
      linear(Target{platform, false}, input, operand, std::nullopt, DType::kF32);
  const auto y = program.run({product})[0].to_vector<float>();
  for (int64_t i = 0; i < rows * kOut; ++i) {
    const float* own_x = seen.data() + i / kOut * kIn;
    const float* own_w = w.dense.data() + i % kOut * kIn;
    ASSERT_NEAR(y[static_cast<size_t>(i)], expected(own_x, own_w), bound * norm(own_x, own_w))
        << rows << " rows, row " << i / kOut;
  }
}

TEST_P(LinearQuantized, IsTheProductOfTheNumbersThatItStandsFor) {
  // f32 sums; of rounded rows a number may fall to its other neighbour, by how a quotient is
  // rounded.
  const double bound = GetParam().activations ? 2e-4 : 2e-6;
  // Of blocks no more rows than they have, and more.
  for (const int64_t rows : {1, 2, 9}) expect_product(GetParam(), rows, DType::kF32, bound);
}

// Weights become bf16 beside the product, whose sums are f32.
TEST_P(LinearQuantized, IsThatProductInBfloat16Too) {
  const double bound = GetParam().activations ? 2e-2 : 2e-3;
  for (const int64_t rows : {1, 2, 9, 40}) expect_product(GetParam(), rows, DType::kBF16, bound);
}

TEST_P(LinearQuantized, ExpertsTakeTheirOwnRows) {
  const auto [dtype, group, zero_points, activations, block, platform] = GetParam();
  constexpr int64_t kExperts = 3;
  const Numbers w = make_weight(kExperts * kOut, dtype, group, block, zero_points);
  for (const int64_t rows : {3, 8, 9, 600}) {  // by gathering, by all experts, in a loop
    const std::vector<float> x = make_rows(rows);
    const std::vector<float> seen = activations ? rounded_rows(x, dtype) : x;
    std::vector<int32_t> ids;
    for (int64_t i = 0; i < rows; ++i) ids.push_back(static_cast<int32_t>(i * 2 % kExperts));
    TestProgram program;
    const ir::Value input = program.argument(x, DType::kF32, {rows, kIn});
    const ir::Value experts = program.argument(ids, DType::kS32, {rows});
    WeightOperand operand = operand_of(program, w, dtype, {kExperts, kOut, kIn}, group, block);
    operand.quantize_activations = activations;
    const auto y = program.run({expert_linear(Target{platform, false}, input, experts, operand)})[0]
                       .to_vector<float>();
    for (int64_t i = 0; i < rows * kOut; ++i) {
      const float* own_x = seen.data() + i / kOut * kIn;
      const int64_t row = ids[static_cast<size_t>(i / kOut)] * kOut + i % kOut;
      const float* own_w = w.dense.data() + row * kIn;
      const double bound = (activations ? 2e-4 : 2e-6) * norm(own_x, own_w);
      ASSERT_NEAR(y[static_cast<size_t>(i)], expected(own_x, own_w), bound) << "row " << i / kOut;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Forms, LinearQuantized,
    testing::Values(Form{DType::kS8, kIn, false, false}, Form{DType::kS8, kIn, false, true},
                    Form{DType::kF8E4M3FN, kIn, false, false},
                    Form{DType::kF8E4M3FN, kIn, false, true},
                    Form{DType::kF8E4M3FN, kGroup, false, false},
                    Form{DType::kS4, kGroup, false, false}, Form{DType::kS4, kGroup, true, false},
                    Form{DType::kS8, kGroup, true, false}, Form{DType::kS4, 32, false, false},
                    Form{DType::kS8, 16, true, false}, Form{DType::kF4E2M1FN, 32, false, false},
                    Form{DType::kF8E4M3FN, kGroup, false, false, kBlock},
                    Form{DType::kS8, kGroup, true, false, kBlock},
                    Form{DType::kF8E4M3FN, kGroup, false, false, kBlock, Platform::kTpu},
                    Form{DType::kS8, kGroup, true, false, kBlock, Platform::kTpu}),
    [](const auto& test) {
      const Form& form = test.param;
      const std::string shared = form.block > 1      ? "blocks"
                                 : form.group == kIn ? "rows"
                                                     : fmt::format("groups_of_{}", form.group);
      return fmt::format(
          "{}_{}{}{}{}", dtype_name(form.dtype), shared, form.zero_points ? "_zero_points" : "",
          form.activations ? "_activations" : "", form.platform == Platform::kTpu ? "_tpu" : "");
    });

// A product of [rows, in] for a TPU with weights [out, in] on so many devices.
struct Rounding {
  DType dtype;
  int64_t matrix_unit, rows, out, devices;
  bool pays;
};

class LinearQuantizedRounding : public testing::TestWithParam<Rounding> {};

// Then it is the instruction that the units of low precision have.
TEST_P(LinearQuantizedRounding, IsWhereItPays) {
  const auto [dtype, matrix_unit, rows, out, devices, pays] = GetParam();
  ir::Module module;
  ir::Function& main = module.add_function();
  WeightOperand operand;
  operand.value = main.add_argument(Shape(dtype, {out, kIn}));
  operand.scales = main.add_argument(Shape(DType::kF32, {out}));
  operand.dims = {out, kIn};
  operand.quantize_activations = true;
  const Target target{Platform::kTpu, false, nullptr, matrix_unit};
  const ir::Value x = main.add_argument(Shape(DType::kBF16, {rows, kIn}));
  const Rows given = rows_for(target, x, {operand}, devices);
  EXPECT_EQ(given.parts().size(), pays ? 2U : 1U);
  const ir::Value y = linear(target, given, operand);
  EXPECT_EQ(y.shape(), Shape(DType::kBF16, {rows, out}));
  main.set_results({y});
  const std::string product =
      fmt::format("tensor<{0}x256x{2}>, tensor<{1}x256x{2}>) -> tensor<{0}x{1}x{3}>", rows, out,
                  dtype_name(dtype), dtype == DType::kS8 ? "i32" : "f32");
  EXPECT_EQ(module.to_string().find(product) != std::string::npos, pays) << module.to_string();
}

INSTANTIATE_TEST_SUITE_P(
    All, LinearQuantizedRounding,
    testing::Values(Rounding{DType::kS8, 128, 129, 4096, 1, true},
                    Rounding{DType::kS8, 128, 128, 4096, 1, false},  // they wait for the weight
                    Rounding{DType::kS8, 128, 129, 4032, 1, false},
                    Rounding{DType::kS8, 128, 129, 1024, 4, true},
                    Rounding{DType::kS8, 256, 129, 4096, 1, false},
                    Rounding{DType::kS8, 256, 129, 8192, 1, true},
                    Rounding{DType::kF8E4M3FN, 256, 129, 8192, 1, true},
                    Rounding{DType::kF8E4M3FN, 128, 129, 8192, 1, false}),  // no such units
    [](const auto& test) {
      const Rounding& of = test.param;
      return fmt::format("{}_unit{}_{}rows_{}columns_{}devices", dtype_name(of.dtype),
                         of.matrix_unit, of.rows, of.out, of.devices);
    });

TEST(LinearQuantizedProgram, RowsRoundedForAnotherFormAreRefused) {
  ir::Module module;
  ir::Function& main = module.add_function();
  const auto argument = [&](DType dtype, const Dims& dims) {
    return main.add_argument(Shape(dtype, dims));
  };
  WeightOperand small{argument(DType::kS8, {kOut, kIn}), Encoding::kDense, {kOut, kIn}};
  small.scales = argument(DType::kF32, {kOut});
  small.quantize_activations = true;
  const Rows rows = rows_for({}, argument(DType::kF32, {2, kIn}), {small});
  EXPECT_EQ(rows.values.dtype(), DType::kS8);
  const WeightOperand dense{argument(DType::kBF16, {kOut, kIn}), Encoding::kDense, {kOut, kIn}};
  EXPECT_THROW(linear({}, rows, dense), Error);
  EXPECT_THROW(Rows({rows.values, argument(DType::kF32, {3})}, DType::kF32), Error);
  // What one of the weights does not take stays as it is.
  EXPECT_EQ(rows_for({}, argument(DType::kF32, {2, kIn}), {small, dense}).parts().size(), 1U);
}

// Few rows are scaled themselves, and the values go into the product as they are; many meet
// numbers.
TEST(LinearQuantizedProgram, BlocksAreBatchesOfTheProductOnTpu) {
  const auto program = [](int64_t rows) {
    ir::Module module;
    ir::Function& main = module.add_function();
    WeightOperand operand;
    operand.value = main.add_argument(Shape(DType::kF8E4M3FN, {kOut, kIn}));
    operand.scales = main.add_argument(Shape(DType::kF32, {kOut / kBlock, kIn / kGroup}));
    operand.dims = {kOut, kIn};
    const ir::Value x = main.add_argument(Shape(DType::kBF16, {rows, kIn}));
    main.set_results({linear({Platform::kTpu, false}, x, operand)});
    return module.to_string();
  };
  const auto has = [](const std::string& text, const char* part) {
    return text.find(part) != std::string::npos;
  };
  const std::string few = program(kBlock), many = program(kBlock + 1);
  EXPECT_TRUE(has(few, "(tensor<3x8x256xf8E4M3FN>) -> tensor<3x8x256xbf16>")) << few;
  EXPECT_TRUE(has(many, "(tensor<3x8x256xf8E4M3FN>) -> tensor<3x8x256xf32>")) << many;
  EXPECT_TRUE(has(many, "(tensor<3x9x256xbf16>, tensor<3x8x256xbf16>) -> tensor<3x9x8xf32>"));
}

// A row of a table takes its scales, or those of its block.
TEST(LinearQuantizedProgram, EmbeddingsTakeTheirScales) {
  for (const int64_t block : {kBlock, int64_t{1}}) {
    const Numbers w = make_weight(kOut, DType::kF8E4M3FN, kGroup, block, false);
    const std::vector<int32_t> tokens = {23, 0, 8, 7};
    TestProgram program;
    const WeightOperand table =
        operand_of(program, w, DType::kF8E4M3FN, {kOut, kIn}, kGroup, block);
    const ir::Value ids = program.argument(tokens, DType::kS32, {2, 2});
    const auto y =
        program.run({embedding(test_target(false), table, ids, DType::kF32)})[0].to_vector<float>();
    for (size_t i = 0; i < y.size(); ++i) {
      const size_t row = i / static_cast<size_t>(kIn);
      const auto from = static_cast<size_t>(tokens[row]) * kIn + i % kIn;
      ASSERT_EQ(y[i], w.dense[from]) << "token " << tokens[row];
    }
  }
}

TEST(LinearQuantizedProgram, ScalesThatDoNotFitAreRefused) {
  ir::Module module;
  ir::Function& main = module.add_function();
  const ir::Value x = main.add_argument(Shape(DType::kBF16, {4, kIn}));
  WeightOperand operand;
  operand.value = main.add_argument(Shape(DType::kS4, {kOut, kIn}));
  operand.dims = {kOut, kIn};
  EXPECT_THROW(linear({}, x, operand), Error);
  operand.scales = main.add_argument(Shape(DType::kF32, {kOut, 3}));
  EXPECT_THROW(linear({}, x, operand), Error);
  operand.scales = main.add_argument(Shape(DType::kBF16, {kOut, 4}));
  operand.zero_points = main.add_argument(Shape(DType::kBF16, {kOut, 2}));
  EXPECT_THROW(linear({}, x, operand), Error);
}

}  // namespace
}  // namespace ttpu::kernels
