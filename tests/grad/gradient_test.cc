// Gradients against central differences, in f64, on every CPU plugin.
#include <cmath>
#include <random>

#include <gtest/gtest.h>

#include "support/run.h"
#include "ttpu/base/error.h"
#include "ttpu/grad/pullback.h"
#include "ttpu/ir/ir.h"

namespace ttpu::grad {
namespace {

using ir::Value;
using ir::Values;
using Numbers = std::vector<std::vector<double>>;
using Build = std::function<Values(const Values&)>;

ir::Function& add_function(ir::Module& module, const std::vector<Shape>& shapes,
                           const Build& build) {
  ir::Function& function = module.add_function("f");
  Values arguments;
  for (const Shape& shape : shapes) arguments.push_back(function.add_argument(shape));
  function.set_results(build(arguments));
  return function;
}

std::vector<Shape> f64_shapes(const std::vector<Dims>& dims) {
  std::vector<Shape> shapes;
  for (const Dims& each : dims) shapes.emplace_back(DType::kF64, each);
  return shapes;
}

Numbers random_numbers(const std::vector<Shape>& shapes, unsigned seed, double low, double high) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<double> numbers(low, high);
  Numbers all;
  for (const Shape& shape : shapes) {
    std::vector<double>& own = all.emplace_back(static_cast<size_t>(shape.num_elements()));
    for (double& number : own) number = numbers(generator);
  }
  return all;
}

double dot(const Numbers& a, const Numbers& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    for (size_t j = 0; j < a[i].size(); ++j) sum += a[i][j] * b[i][j];
  }
  return sum;
}

struct Range {
  double low = -1.5;
  double high = 1.5;
};

// d(cotangents . f(x)) / dx, by the pullback and by differences.
void expect_gradient(const std::vector<Dims>& dims, const Build& build, Range range = {}) {
  const std::vector<Shape> shapes = f64_shapes(dims);
  const Numbers x = random_numbers(shapes, 1, range.low, range.high);
  std::vector<size_t> wanted;
  for (size_t i = 0; i < shapes.size(); ++i) wanted.push_back(i);
  for (const Remat remat : {Remat::kFull, Remat::kMinimal, Remat::kNone}) {
    ir::Module module;
    const Pullback pullback =
        make_pullback(add_function(module, shapes, build), wanted, remat, true);
    ir::Function& main = module.add_function("main");
    Values arguments;
    for (const Shape& shape : shapes) arguments.push_back(main.add_argument(shape));
    const Values forward = ir::call(*pullback.forward, arguments);
    const auto count = static_cast<std::ptrdiff_t>(forward.size() - pullback.kept);
    std::vector<Shape> result_shapes;
    Values given = arguments;
    given.insert(given.end(), forward.begin() + count, forward.end());
    for (std::ptrdiff_t i = 0; i < count; ++i) {
      result_shapes.push_back(forward[static_cast<size_t>(i)].shape());
      given.push_back(main.add_argument(result_shapes.back()));
    }
    Values results(forward.begin(), forward.begin() + count);
    const Values gradients = ir::call(*pullback.backward, given);
    results.insert(results.end(), gradients.begin(), gradients.end());
    main.set_results(results);
    module.verify();

    const Numbers cotangents = random_numbers(result_shapes, 2, -1, 1);
    Numbers inputs = x;
    inputs.insert(inputs.end(), cotangents.begin(), cotangents.end());
    for (const ir::testing::CpuPlugin& plugin : ir::testing::cpu_plugins()) {
      const ir::testing::Program program(plugin.client, module);
      const auto value = [&](const Numbers& at) {
        const Numbers all = program(at);
        return dot(cotangents, {all.begin(), all.begin() + count});
      };
      const Numbers all = program(inputs);
      for (size_t i = 0; i < shapes.size(); ++i) {
        for (size_t j = 0; j < x[i].size(); ++j) {
          constexpr double kStep = 1e-5;
          Numbers moved = inputs;
          moved[i][j] = x[i][j] + kStep;
          const double above = value(moved);
          moved[i][j] = x[i][j] - kStep;
          const double expected = (above - value(moved)) / (2 * kStep);
          EXPECT_NEAR(all[static_cast<size_t>(count) + i][j], expected,
                      1e-6 * std::max(1.0, std::fabs(expected)))
              << plugin.name << ": argument " << i << ", number " << j;
        }
      }
    }
  }
}

TEST(Gradient, Unary) {
  expect_gradient({{2, 3}},
                  [](const Values& v) {
                    return Values{
                        ir::sine(v[0]), ir::cosine(v[0]),   ir::exponential(v[0]),
                        ir::tanh(v[0]), ir::logistic(v[0]), ir::negate(v[0]),
                        ir::abs(v[0]),  ir::tan(v[0]),      ir::exponential_minus_one(v[0])};
                  },
                  {-1.2, 1.2});
  expect_gradient({{5}},
                  [](const Values& v) {
                    return Values{ir::log(v[0]), ir::sqrt(v[0]), ir::rsqrt(v[0]), ir::cbrt(v[0]),
                                  ir::log_plus_one(v[0])};
                  },
                  {0.5, 2});
}

TEST(Gradient, Binary) {
  expect_gradient({{4}, {4}},
                  [](const Values& v) {
                    return Values{v[0] + v[1],
                                  v[0] - v[1],
                                  v[0] * v[1],
                                  v[0] / v[1],
                                  ir::maximum(v[0], v[1]),
                                  ir::minimum(v[0], v[1]),
                                  ir::power(v[0], v[1]),
                                  ir::atan2(v[0], v[1]),
                                  ir::remainder(v[0], v[1])};
                  },
                  {0.3, 2});
}

TEST(Gradient, WhatIsUsedTwiceIsSummed) {
  expect_gradient({{3}}, [](const Values& v) {
    const Value y = v[0] * v[0];
    return Values{y * v[0] + ir::sine(y)};
  });
}

TEST(Gradient, SelectAndClamp) {
  expect_gradient({{6}, {6}}, [](const Values& v) {
    const Value zero = ir::full(v[0].function(), v[0].shape(), 0);
    const Value positive = ir::compare(v[0], zero, ir::ComparisonDirection::kGt);
    return Values{ir::select(positive, v[1], v[0]),
                  ir::clamp(ir::scalar_like(v[1], -0.7), v[1], ir::scalar_like(v[1], 0.6))};
  });
}

TEST(Gradient, Shapes) {
  expect_gradient({{2, 3, 4}, {3}}, [](const Values& v) {
    const Value zero = ir::scalar(v[0].function(), DType::kS32, 0);
    const Value one = ir::scalar(v[0].function(), DType::kS32, 1);
    const Value wide = ir::broadcast_in_dim(v[1], {4, 3, 2}, {1});
    return Values{
        ir::transpose(v[0], {2, 0, 1}) * ir::transpose(wide, {0, 2, 1}),
        ir::slice(v[0], {0, 1, 0}, {2, 3, 4}, {1, 1, 3}),
        ir::concatenate({ir::reshape(v[0], {6, 4}), ir::reshape(v[0] * v[0], {6, 4})}, 1),
        ir::pad(v[1], ir::scalar_like(v[1], 0), {1}, {2}, {1}) * 3.0,
        ir::reverse(v[0], {0, 2}),
        ir::dynamic_slice(v[0], {zero, one, one}, {1, 2, 2}) +
            ir::dynamic_slice(v[0], {one, one, zero}, {1, 2, 2}),
        ir::dynamic_update_slice(v[0], ir::sine(ir::reshape(v[1], {1, 3, 1})), {one, zero, one})};
  });
  expect_gradient({{2, 1}, {3, 2}}, [](const Values& v) {
    return Values{ir::broadcast_in_dim(v[0], {2, 5}, {0, 1}),
                  ir::broadcast_in_dim(v[1], {2, 4, 3}, {2, 0})};
  });
}

TEST(Gradient, Products) {
  expect_gradient({{2, 3, 4}, {4, 5, 2}}, [](const Values& v) {
    return Values{ir::dot_general(v[0], v[1], {{0}, {2}, {2}, {0}}),
                  ir::dot_general(v[0], v[1], {{}, {}, {2}, {0}}),
                  ir::dot_general(v[0], v[1], {{}, {}, {2, 0}, {0, 2}}),
                  ir::dot_general(v[0], v[1], {{2}, {0}, {0}, {2}})};
  });
}

TEST(Gradient, Reductions) {
  expect_gradient({{3, 4}}, [](const Values& v) {
    return Values{ir::reduce_sum(v[0], {0}), ir::reduce_max(v[0], {1}), ir::reduce_min(v[0], {0}),
                  ir::top_k(v[0], 2).first};
  });
}

TEST(Gradient, GatherAndScatter) {
  expect_gradient({{4, 3}, {2, 3}}, [](const Values& v) {
    ir::Function& function = v[0].function();
    const Value rows = ir::constant_vector(function, DType::kS32, {2, 0, 2});
    const Value places = ir::reshape(ir::constant_vector(function, DType::kS32, {1, 3}), {2, 1});
    return Values{ir::take(v[0], rows, 0), ir::take(v[0], rows, 1),
                  ir::scatter({v[0]}, places, {v[1]},
                              {.update_window_dims = {1},
                               .inserted_window_dims = {0},
                               .scatter_dims_to_operand_dims = {0},
                               .index_vector_dim = 1},
                              [](const Values& s) { return Values{s[0] + s[1]}; })[0]};
  });
}

TEST(Gradient, ThroughCalls) {
  expect_gradient({{3}, {3}}, [](const Values& v) {
    ir::Function& inner = v[0].function().module().add_function("inner");
    const Value x = inner.add_argument(v[0].shape());
    inner.set_results({ir::sine(x) * x});
    const Value once = ir::call(inner, {v[0]})[0];
    return Values{ir::call(inner, {once * v[1]})[0]};
  });
}

TEST(Gradient, OfItsOwn) {
  // Says that the derivative of x^2 is 6 x.
  ir::Module module;
  ir::Function& square = module.add_function("square");
  const Shape shape(DType::kF64, {2});
  const Value x = square.add_argument(shape);
  square.set_results({x * x});
  square.set_gradient({[](const Values& arguments) -> Values {
                         return {arguments[0] * arguments[0], arguments[0] * 3.0};
                       },
                       [](const Values&, const Values& kept, const Values& cotangents) -> Values {
                         return {kept[1] * cotangents[0] * 2.0};
                       }});
  ir::Function& f = add_function(module, {shape},
                                 [&](const Values& v) { return ir::call(square, {v[0] * 2.0}); });
  const Pullback pullback = make_pullback(f, {0}, Remat::kMinimal);
  EXPECT_EQ(pullback.kept, 1);
  ir::Function& main = module.add_function("main");
  const Value argument = main.add_argument(shape);
  const Values forward = ir::call(*pullback.forward, {argument});
  main.set_results(ir::call(*pullback.backward, {argument, forward[1], ir::full(main, shape, 1)}));
  for (const ir::testing::CpuPlugin& plugin : ir::testing::cpu_plugins()) {
    EXPECT_EQ(ir::testing::run(plugin.client, module, {{1, -3}}), (Numbers{{24, -72}}));
  }
}

TEST(Gradient, KeepsWhatThePolicySays) {
  const auto kept = [](Remat remat) {
    ir::Module module;
    const std::vector<Shape> shapes = f64_shapes({{2, 2}, {2, 2}, {2, 2}});
    ir::Function& f = add_function(module, shapes, [](const Values& v) {
      return Values{ir::matmul(ir::tanh(ir::matmul(v[0], v[1])), v[2])};
    });
    return make_pullback(f, {0, 1, 2}, remat).kept;
  };
  EXPECT_EQ(kept(Remat::kFull), 0);
  EXPECT_EQ(kept(Remat::kMinimal), 1);  // the first product
  EXPECT_EQ(kept(Remat::kNone), 1);     // its tanh
}

TEST(Gradient, RefusesWhatHasNone) {
  const auto refusal = [](const Build& build) -> std::string {
    ir::Module module;
    try {
      make_pullback(add_function(module, f64_shapes({{4}}), build), {0}, Remat::kFull);
    } catch (const Error& error) {
      return error.what();
    }
    return "none";
  };
  EXPECT_EQ(refusal([](const Values& v) {
              return ir::while_loop(
                  {v[0]},
                  [](const Values& c) { return ir::scalar(c[0].function(), DType::kPred, 0); },
                  [](const Values& c) { return c; });
            }),
            "[gradient] stablehlo.while has no gradient");
  EXPECT_EQ(
      refusal([](const Values& v) {
        return Values{ir::bitcast_convert(ir::bitcast_convert(v[0], DType::kS64), DType::kF64)};
      }),
      "[gradient] stablehlo.bitcast_convert has no gradient");
  EXPECT_EQ(refusal([](const Values& v) {
              return Values{ir::reduce({v[0]}, {ir::scalar_like(v[0], 1)}, {0},
                                       [](const Values& a) { return Values{a[0] * a[1]}; })};
            }),
            "[gradient] stablehlo.reduce has a gradient where it is a sum, a maximum or a minimum");
}

}  // namespace
}  // namespace ttpu::grad
