// Normalization: the CPU kernel on every instruction set against float64, and both implementations
// as programs.
#include "ttpu/kernels/norm/norm.h"

#include <cmath>
#include <cstring>
#include <random>

#include "program_testing.h"
#include "ttpu/kernels/norm/cpu/kernel.h"

namespace ttpu::kernels {
namespace {

using Floats = std::vector<float>;

float rounded(double x, DType dtype) {
  const auto narrow = static_cast<float>(x);
  return dtype == DType::kF32 ? narrow : f32_from_bf16(bf16_from_f32(narrow));
}
Floats randoms(int64_t count, std::mt19937& rng, DType dtype) {
  std::normal_distribution<float> normal(0.3f, 1);
  Floats values(static_cast<size_t>(count));
  for (float& v : values) v = rounded(static_cast<double>(normal(rng)), dtype);
  return values;
}
std::vector<char> encode(const Floats& values, DType dtype) {
  std::vector<char> bytes(values.size() * (dtype == DType::kF32 ? 4 : 2));
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t half = bf16_from_f32(values[i]);
    if (dtype == DType::kF32) {
      std::memcpy(&bytes[4 * i], &values[i], 4);
    } else {
      std::memcpy(&bytes[2 * i], &half, 2);
    }
  }
  return bytes;
}
Floats decode(const std::vector<char>& bytes, DType dtype) {
  Floats values(bytes.size() / (dtype == DType::kF32 ? 4 : 2));
  for (size_t i = 0; i < values.size(); ++i) {
    if (dtype == DType::kF32) {
      std::memcpy(&values[i], &bytes[4 * i], 4);
    } else {
      uint16_t half;
      std::memcpy(&half, &bytes[2 * i], 2);
      values[i] = f32_from_bf16(half);
    }
  }
  return values;
}

struct Case {
  int64_t rows, dim;
  DType dtype, weight_dtype;
  NormOptions options;
  bool bias, delta;
};

struct Numbers {
  explicit Numbers(const Case& c) {
    std::mt19937 rng(static_cast<uint32_t>(c.dim));
    x = randoms(c.rows * c.dim, rng, c.dtype);
    delta = randoms(c.rows * c.dim, rng, c.dtype);
    weight = randoms(c.dim, rng, c.weight_dtype);
    bias = randoms(c.dim, rng, c.weight_dtype);
    expect(c);
  }
  Floats x, delta, weight, bias, sum, normed;

 private:
  void expect(const Case& c) {
    for (size_t i = 0; i < x.size(); ++i) {
      sum.push_back(c.delta ? rounded(static_cast<double>(x[i] + delta[i]), c.dtype) : x[i]);
    }
    const auto dim = static_cast<size_t>(c.dim);
    for (size_t row = 0; row < sum.size(); row += dim) {
      double mean = 0, square = 0;
      for (size_t i = 0; i < dim; ++i)
        mean += static_cast<double>(sum[row + i]) / static_cast<double>(dim);
      if (c.options.kind == NormKind::kRms) mean = 0;
      for (size_t i = 0; i < dim; ++i) {
        square += std::pow(static_cast<double>(sum[row + i]) - mean, 2) / static_cast<double>(dim);
      }
      for (size_t i = 0; i < dim; ++i) {
        double v =
            (static_cast<double>(sum[row + i]) - mean) / std::sqrt(square + c.options.epsilon);
        auto w = static_cast<double>(weight[i]);
        if (c.options.scale == NormScale::kOnePlus) w += 1;
        if (c.options.scale == NormScale::kRounded) {
          v = static_cast<double>(rounded(v, c.dtype));
          w = static_cast<double>(rounded(w, c.dtype));
        }
        v *= w;
        if (c.bias) v += static_cast<double>(bias[i]);
        normed.push_back(rounded(v, c.dtype));
      }
    }
  }
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const DType dtype : {DType::kBF16, DType::kF32}) {
    for (const DType weight : {DType::kBF16, DType::kF32}) {
      for (const int64_t dim : {1, 5, 64, 576, 1000}) {
        const bool delta = dim % 2 == 0;
        all.push_back({3, dim, dtype, weight, {}, false, delta});
        all.push_back({20, dim, dtype, weight, {.scale = NormScale::kOnePlus}, false, delta});
        all.push_back(
            {2, dim, dtype, weight, {NormKind::kLayer, NormScale::kF32, 1e-5}, true, !delta});
        all.push_back({2, dim, dtype, weight, {.scale = NormScale::kF32}, false, delta});
      }
    }
  }
  return all;
}

// One rounding more or less of bf16 is 2^-8 of a number: rare in the kernel, while XLA may leave
// any rounding between two operators out.
constexpr double kKernelBound = 2e-6, kProgramBound = 3e-5;
void expect_near(const Floats& given, const Floats& expected, DType dtype, const char* what,
                 double bf16_bound) {
  ASSERT_EQ(given.size(), expected.size());
  double error = 0, norm = 1e-12;
  for (size_t i = 0; i < given.size(); ++i) {
    const double difference = static_cast<double>(given[i]) - static_cast<double>(expected[i]);
    error += difference * difference;
    norm += static_cast<double>(expected[i]) * static_cast<double>(expected[i]);
  }
  EXPECT_LT(error / norm, dtype == DType::kF32 ? 1e-11 : bf16_bound) << what;
}

TEST(Norm, TheKernelGivesWhatFloat64Gives) {
  auto pool = make_thread_pool(2);
  for (const Case& c : cases()) {
    const Numbers n(c);
    const auto x = encode(n.x, c.dtype), delta = encode(n.delta, c.dtype);
    const auto weight = encode(n.weight, c.weight_dtype), bias = encode(n.bias, c.weight_dtype);
    for (const Isa isa : supported_isas()) {
      std::vector<char> sum(x.size()), out(x.size());
      cpu::norm({.dtype = c.dtype,
                 .weight_dtype = c.weight_dtype,
                 .x = x.data(),
                 .delta = c.delta ? delta.data() : nullptr,
                 .sum = sum.data(),
                 .weight = weight.data(),
                 .bias = c.bias ? bias.data() : nullptr,
                 .out = out.data(),
                 .rows = c.rows,
                 .dim = c.dim,
                 .epsilon = static_cast<float>(c.options.epsilon),
                 .layer = c.options.kind == NormKind::kLayer,
                 .round_first = c.options.scale == NormScale::kRounded,
                 .weight_offset = c.options.scale == NormScale::kOnePlus ? 1.f : 0.f},
                pool.get(), isa);
      expect_near(decode(out, c.dtype), n.normed, c.dtype, isa_name(isa), kKernelBound);
      if (c.delta) {
        EXPECT_EQ(decode(sum, c.dtype), n.sum);
      }
    }
  }
}

TEST(Norm, ProgramsGiveWhatFloat64Gives) {
  for (const bool custom_calls : {false, true}) {
    for (const Case& c : cases()) {
      if (c.dim != 64 && c.dim != 5) continue;
      const Numbers n(c);
      TestProgram program;
      const Dims dims = {c.rows, c.dim};
      const ir::Value x = program.argument(encode(n.x, c.dtype), c.dtype, dims);
      NormWeights weights{
          program.argument(encode(n.weight, c.weight_dtype), c.weight_dtype, {c.dim})};
      if (c.bias) {
        weights.bias = program.argument(encode(n.bias, c.weight_dtype), c.weight_dtype, {c.dim});
      }
      const Target target = test_target(custom_calls);
      ir::Values results;
      if (c.delta) {
        const ir::Value delta = program.argument(encode(n.delta, c.dtype), c.dtype, dims);
        const AddNormResult both = add_norm(target, x, delta, weights, c.options);
        results = {both.normed, both.sum};
      } else {
        results = {norm(target, x, weights, c.options)};
      }
      for (ir::Value& value : results) value = ir::convert(value, DType::kF32);
      const auto out = program.run(results);
      expect_near(out[0].to_vector<float>(), n.normed, c.dtype,
                  custom_calls ? "kernel" : "reference", kProgramBound);
      if (c.delta) expect_near(out[1].to_vector<float>(), n.sum, c.dtype, "sum", kProgramBound);
    }
  }
}

TEST(Norm, ShapesThatDoNotFitAreRefused) {
  ir::Module module;
  ir::Function& main = module.add_function();
  const auto f32 = [&](Dims dims) { return main.add_argument(Shape(DType::kF32, dims)); };
  const ir::Value x = f32({4, 8}), weight = f32({8});
  EXPECT_NO_THROW(norm({}, x, {weight}, {}));
  EXPECT_THROW(norm({}, x, {f32({4})}, {}), Error);
  EXPECT_THROW(norm({}, x, {weight, weight}, {}), Error);
  EXPECT_THROW(norm({}, x, {weight, f32({4})}, {.scale = NormScale::kF32}), Error);
  EXPECT_THROW(add_norm({}, x, f32({4, 4}), {weight}, {}), Error);
}

}  // namespace
}  // namespace ttpu::kernels
