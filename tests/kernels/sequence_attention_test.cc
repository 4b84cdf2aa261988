// Attention of whole sequences and its gradient, run through the CPU plugin, against sums in
// float64.
#include "ttpu/kernels/sequence_attention/sequence_attention.h"

#include <cmath>
#include <random>
#include <vector>

#include "program_testing.h"
#include "tests/support/error_of.h"
#include "ttpu/base/dtype.h"

namespace ttpu::kernels {
namespace {

using Floats = std::vector<float>;
using Doubles = std::vector<double>;

struct Case {
  const char* name;
  int64_t sequences = 1, length = 12;
  int64_t q_heads = 4, kv_heads = 2, size = 16, value_size = 16;
  SequenceAttentionOptions options = {.scale = 0.25};
  bool sinks = false;
  DType dtype = DType::kF32;

  int64_t tokens() const { return sequences * length; }
  Dims q_dims() const { return {tokens(), q_heads, size}; }
  Dims k_dims() const { return {tokens(), kv_heads, size}; }
  Dims v_dims() const { return {tokens(), kv_heads, value_size}; }
  Dims output_dims() const { return {tokens(), q_heads, value_size}; }
};

size_t elements(const Dims& dims) {
  return static_cast<size_t>(Shape(DType::kF32, dims).num_elements());
}

// q, k, v and sinks, or what belongs to each of them.
using Operands = std::vector<Doubles>;

struct Expected {
  Doubles output;
  Operands gradients;
};

// Plain softmax, and the derivative of the sum of output * d_output, one query and head at a time.
Expected attention(const Case& c, const Operands& given, const Doubles& d_output) {
  const Doubles &q = given[0], &k = given[1], &v = given[2];
  const auto at = [](int64_t token, int64_t heads, int64_t head, int64_t size) {
    return static_cast<size_t>((token * heads + head) * size);
  };
  Expected made;
  made.output.resize(elements(c.output_dims()));
  for (const Doubles& operand : given) made.gradients.emplace_back(operand.size());
  const double cap = c.options.soft_cap.value_or(0);
  for (int64_t token = 0; token < c.tokens(); ++token) {
    const int64_t start = token / c.length * c.length;
    const int64_t last = c.options.causal ? token : start + c.length - 1;
    const int64_t first =
        c.options.sliding_window ? std::max(start, token - *c.options.sliding_window + 1) : start;
    for (int64_t h = 0; h < c.q_heads; ++h) {
      const int64_t kv = h / (c.q_heads / c.kv_heads);
      const size_t row = at(token, c.q_heads, h, c.size);
      const size_t out = at(token, c.q_heads, h, c.value_size);
      Doubles scores, slopes;
      double most = c.sinks ? given[3][static_cast<size_t>(h)] : -1e300;
      for (int64_t j = first; j <= last; ++j) {
        double score = 0;
        for (int64_t d = 0; d < c.size; ++d) {
          score += q[row + static_cast<size_t>(d)] *
                   k[at(j, c.kv_heads, kv, c.size) + static_cast<size_t>(d)];
        }
        score *= c.options.scale;
        const double curve = cap > 0 ? std::tanh(score / cap) : 0;
        scores.push_back(cap > 0 ? cap * curve : score);
        slopes.push_back(c.options.scale * (1 - curve * curve));
        most = std::max(most, scores.back());
      }
      double total = c.sinks ? std::exp(given[3][static_cast<size_t>(h)] - most) : 0;
      const double sink_weight = total;
      for (double& score : scores) total += (score = std::exp(score - most));
      double shared = 0;
      for (int64_t d = 0; d < c.value_size; ++d) {
        const auto i = static_cast<size_t>(d);
        double sum = 0;
        for (int64_t j = first; j <= last; ++j) {
          sum +=
              scores[static_cast<size_t>(j - first)] * v[at(j, c.kv_heads, kv, c.value_size) + i];
        }
        made.output[out + i] = sum / total;
        shared += sum / total * d_output[out + i];
      }
      if (c.sinks) made.gradients[3][static_cast<size_t>(h)] -= sink_weight / total * shared;
      for (int64_t j = first; j <= last; ++j) {
        const double weight = scores[static_cast<size_t>(j - first)] / total;
        const size_t value = at(j, c.kv_heads, kv, c.value_size);
        double d_weight = 0;
        for (size_t i = 0; i < static_cast<size_t>(c.value_size); ++i) {
          made.gradients[2][value + i] += weight * d_output[out + i];
          d_weight += v[value + i] * d_output[out + i];
        }
        const double slope = weight * (d_weight - shared) * slopes[static_cast<size_t>(j - first)];
        const size_t key = at(j, c.kv_heads, kv, c.size);
        for (size_t i = 0; i < static_cast<size_t>(c.size); ++i) {
          made.gradients[0][row + i] += slope * k[key + i];
          made.gradients[1][key + i] += slope * q[row + i];
        }
      }
    }
  }
  return made;
}

// Random numbers, as the program has them and as they are summed here.
struct Numbers {
  Numbers(const Case& c, unsigned seed) : rng(seed), dtype(c.dtype) {
    for (const Dims& dims : {c.q_dims(), c.k_dims(), c.v_dims()}) operands.push_back(random(dims));
    d_output = random(c.output_dims());
    if (!c.sinks) return;
    dtype = DType::kF32;
    operands.push_back(random({c.q_heads}));
  }

  Doubles random(const Dims& dims) {
    std::normal_distribution<float> normal;
    Doubles values(elements(dims));
    for (double& value : values) {
      const float x = normal(rng);
      value = dtype == DType::kBF16 ? f32_from_bf16(bf16_from_f32(x)) : x;
    }
    return values;
  }

  std::mt19937 rng;
  DType dtype;
  Operands operands;
  Doubles d_output;
};

ir::Value argument(TestProgram& program, const Doubles& values, DType dtype, const Dims& dims) {
  const Floats floats(values.begin(), values.end());
  const ir::Value x = program.argument(floats, DType::kF32, dims);
  return ir::convert(x, dtype);
}

ir::Values arguments(TestProgram& program, const Case& c, const Numbers& numbers) {
  ir::Values made;
  const std::vector<Dims> dims = {c.q_dims(), c.k_dims(), c.v_dims(), {c.q_heads}};
  for (size_t i = 0; i < numbers.operands.size(); ++i) {
    const DType dtype = i < 3 ? c.dtype : DType::kF32;
    made.push_back(argument(program, numbers.operands[i], dtype, dims[i]));
  }
  return made;
}

ir::Value build(const Case& c, const ir::Values& a) {
  SequenceAttentionOptions options = c.options;
  if (c.sinks) options.sinks = a[3];
  return sequence_attention(test_target(false), a[0], a[1], a[2], c.length, options);
}

const ir::Function& function_of(ir::Value result) {
  const ir::Operation& call = *result.producer();
  EXPECT_EQ(call.kind, ir::OpKind::kCall);
  return *result.function().module().find_function(call.attributes.get<ir::Symbol>("callee").name);
}

void expect_near(const pjrt::Buffer& buffer, const Doubles& expected, double tolerance,
                 const std::string& what) {
  const auto made = buffer.to_vector<float>();
  ASSERT_EQ(made.size(), expected.size()) << what;
  for (size_t i = 0; i < made.size(); ++i) {
    ASSERT_NEAR(made[i], expected[i], tolerance * (1 + std::abs(expected[i]))) << what << " " << i;
  }
}

std::vector<Case> cases() {
  return {
      {.name = "causal"},
      {.name = "not_causal", .options = {.scale = 0.25, .causal = false}},
      {.name = "one_token", .length = 1},
      {.name = "sequences", .sequences = 3, .length = 7},
      {.name = "window", .options = {.scale = 0.25, .sliding_window = 4}},
      {.name = "window_without_causal",
       .options = {.scale = 0.25, .causal = false, .sliding_window = 4}},
      {.name = "soft_cap", .options = {.scale = 0.5, .soft_cap = 1.5}},
      {.name = "sinks", .sinks = true},
      {.name = "one_key_head", .q_heads = 3, .kv_heads = 1},
      {.name = "as_many_key_heads", .q_heads = 3, .kv_heads = 3},
      {.name = "other_values", .size = 24, .value_size = 8},
      {.name = "all_of_it",
       .sequences = 2,
       .length = 11,
       .q_heads = 6,
       .value_size = 8,
       .options = {.scale = 0.5, .sliding_window = 5, .soft_cap = 2.0},
       .sinks = true},
      {.name = "blocks", .sequences = 2, .length = 1100, .q_heads = 2, .kv_heads = 1},
      {.name = "blocks_not_causal",
       .length = 700,
       .options = {.scale = 0.25, .causal = false, .soft_cap = 3.0}},
      {.name = "blocks_with_a_window",
       .length = 1300,
       .options = {.scale = 0.25, .sliding_window = 300},
       .sinks = true},
      {.name = "blocks_with_a_window_without_causal",
       .length = 1030,
       .options = {.scale = 0.25, .causal = false, .sliding_window = 100}},
      {.name = "bf16", .sequences = 2, .length = 40, .dtype = DType::kBF16},
  };
}

class SequenceAttentionTest : public testing::TestWithParam<Case> {};

TEST_P(SequenceAttentionTest, IsPlainSoftmaxAndItsGradient) {
  const Case& c = GetParam();
  const Numbers numbers(c, 1);
  const double tolerance = c.dtype == DType::kBF16 ? 0.03 : 1e-5;
  const Expected expected = attention(c, numbers.operands, numbers.d_output);

  TestProgram program;
  const ir::Values given = arguments(program, c, numbers);
  const ir::Value output = build(c, given);
  ASSERT_EQ(output.shape(), Shape(c.dtype, c.output_dims()));
  ASSERT_NE(function_of(output).gradient(), nullptr);
  const ir::CustomGradient gradient = *function_of(output).gradient();
  const auto made = program.run({ir::convert(output, DType::kF32)});
  expect_near(made[0], expected.output, tolerance, "output");

  // In another module, as a pass over a copy has it.
  TestProgram copy;
  const ir::Values again = arguments(copy, c, numbers);
  const ir::Value d_output = argument(copy, numbers.d_output, c.dtype, c.output_dims());
  const ir::Values kept = gradient.forward(again);
  ASSERT_GT(kept.size(), 1);
  ir::Values results = gradient.backward(again, kept, {d_output});
  ASSERT_EQ(results.size(), again.size());
  for (size_t i = 0; i < results.size(); ++i) {
    EXPECT_EQ(results[i].shape(), again[i].shape());
    results[i] = ir::convert(results[i], DType::kF32);
  }
  results.push_back(ir::convert(kept[0], DType::kF32));
  const auto gradients = copy.run(results);
  expect_near(gradients.back(), expected.output, tolerance, "output again");
  for (size_t i = 0; i < again.size(); ++i) {
    expect_near(gradients[i], expected.gradients[i], tolerance, "gradient of " + std::to_string(i));
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, SequenceAttentionTest, testing::ValuesIn(cases()),
                         [](const auto& c) { return c.param.name; });

// The gradients that the test expects are those that differences of its own outputs give.
TEST(SequenceAttention, ExpectedGradientsAreDifferences) {
  const Case c = {.name = "all",
                  .sequences = 2,
                  .length = 5,
                  .q_heads = 2,
                  .kv_heads = 1,
                  .size = 4,
                  .value_size = 3,
                  .options = {.scale = 0.5, .sliding_window = 3, .soft_cap = 1.5},
                  .sinks = true};
  Numbers numbers(c, 2);
  const Expected expected = attention(c, numbers.operands, numbers.d_output);
  const auto loss = [&] {
    const Doubles output = attention(c, numbers.operands, numbers.d_output).output;
    double sum = 0;
    for (size_t i = 0; i < output.size(); ++i) sum += output[i] * numbers.d_output[i];
    return sum;
  };
  constexpr double kStep = 1e-5;
  for (size_t operand = 0; operand < numbers.operands.size(); ++operand) {
    for (size_t i = 0; i < numbers.operands[operand].size(); ++i) {
      double& x = numbers.operands[operand][i];
      const double before = x;
      x = before + kStep;
      const double above = loss();
      x = before - kStep;
      const double below = loss();
      x = before;
      ASSERT_NEAR((above - below) / (2 * kStep), expected.gradients[operand][i], 1e-7);
    }
  }
}

TEST(SequenceAttention, LayersThatAreAlikeCallOneFunction) {
  ir::Module module;
  ir::Function& f = module.add_function();
  const ir::Value x = f.add_argument(Shape(DType::kBF16, {8, 2, 16}));
  const auto attend = [&](int64_t length, const SequenceAttentionOptions& options) {
    return sequence_attention(test_target(false), x, x, x, length, options);
  };
  const ir::Values results = {attend(8, {}), attend(8, {}), attend(4, {}),
                              attend(8, {.sliding_window = 3}), attend(8, {.sliding_window = 9})};
  EXPECT_EQ(&function_of(results[0]), &function_of(results[1]));
  EXPECT_NE(&function_of(results[0]), &function_of(results[2]));
  EXPECT_NE(&function_of(results[0]), &function_of(results[3]));
  EXPECT_EQ(&function_of(results[0]), &function_of(results[4])) << "a window that hides nothing";
  f.set_results(results);
  module.verify();
}

TEST(SequenceAttention, WhatDoesNotFitIsRefusedWithTheShapes) {
  ir::Module module;
  ir::Function& f = module.add_function();
  const auto argument = [&](const Dims& dims, DType dtype = DType::kF32) {
    return f.add_argument(Shape(dtype, dims));
  };
  const ir::Value q = argument({12, 4, 8});
  const ir::Value k = argument({12, 2, 8});
  const auto error = [&](ir::Value keys, ir::Value values, int64_t length,
                         const SequenceAttentionOptions& options = {}) {
    return error_of(
        [&] { sequence_attention(test_target(false), q, keys, values, length, options); },
        Code::kInvalidArgument);
  };
  EXPECT_NE(error(argument({12, 2, 7}), k, 12).find("k tensor<12x2x7xf32>"), std::string::npos);
  EXPECT_NE(error(k, argument({12, 2, 8}, DType::kBF16), 12).find("bf16"), std::string::npos);
  EXPECT_NE(error(argument({12, 3, 8}), argument({12, 3, 8}), 12).find("no multiple of 3"),
            std::string::npos);
  EXPECT_NE(error(k, k, 5).find("12 tokens are no whole sequences of 5"), std::string::npos);
  EXPECT_NE(error(k, k, 12, {.sliding_window = 0}).find("1 or more"), std::string::npos);
  EXPECT_NE(error(k, k, 12, {.soft_cap = 0.0}).find("more than 0"), std::string::npos);
  EXPECT_NE(error(k, k, 12, {.sinks = argument({3})}).find("each of 4 heads"), std::string::npos);
}

}  // namespace
}  // namespace ttpu::kernels
