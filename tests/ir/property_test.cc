// Random programs compared with an evaluation on the host.
#include <algorithm>
#include <bit>
#include <cmath>

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "support/run.h"

namespace ttpu::ir::testing {
namespace {

struct Step {
  int kind;
  size_t lhs;
  size_t rhs;
};

constexpr int kKinds = 8;

Value build(int kind, Value a, Value b) {
  switch (kind) {
    case 0:
      return add(a, b);
    case 1:
      return subtract(a, b);
    case 2:
      return maximum(a, b);
    case 3:
      return minimum(a, b);
    case 4:
      return negate(a);
    case 5:
      return abs(a);
    case 6:
      return select(compare(a, b, ComparisonDirection::kLt), b, a);
    default:
      return clamp(scalar_like(a, -8), a, scalar_like(a, 8));
  }
}

double evaluate(int kind, double a, double b) {
  switch (kind) {
    case 0:
      return a + b;
    case 1:
      return a - b;
    case 2:
      return std::max(a, b);
    case 3:
      return std::min(a, b);
    case 4:
      return -a;
    case 5:
      return std::fabs(a);
    case 6:
      return a < b ? b : a;
    default:
      return std::clamp(a, -8.0, 8.0);
  }
}

TEST(Property, RandomElementwiseProgramsEqualTheHost) {
  const bool holds = rc::check("programs give what the host computes", [] {
    // Small integers: every operator above is exact.
    const auto x = *rc::gen::container<std::vector<int>>(6, rc::gen::inRange(-100, 100));
    const auto count = *rc::gen::inRange(1, 20);
    std::vector<Step> steps;
    for (int i = 0; i < count; ++i) {
      const auto available = static_cast<size_t>(i) + 2;
      steps.push_back({*rc::gen::inRange(0, kKinds), *rc::gen::inRange<size_t>(0, available),
                       *rc::gen::inRange<size_t>(0, available)});
    }
    Module module;
    Function& main = module.add_function();
    const Shape shape(DType::kF32, {3});
    Values values{main.add_argument(shape), main.add_argument(shape)};
    std::vector<std::vector<double>> host{{x.begin(), x.begin() + 3}, {x.begin() + 3, x.end()}};
    const std::vector<std::vector<double>> arguments = host;
    for (const Step& step : steps) {
      values.push_back(build(step.kind, values[step.lhs], values[step.rhs]));
      std::vector<double> result;
      for (size_t i = 0; i < 3; ++i) {
        result.push_back(evaluate(step.kind, host[step.lhs][i], host[step.rhs][i]));
      }
      host.push_back(result);
    }
    main.set_results(values);
    module.verify();
    for (const CpuPlugin& plugin : cpu_plugins()) {
      RC_ASSERT(run(plugin.client, module, arguments) == host);
    }
  });
  EXPECT_TRUE(holds);
}

TEST(Property, ConstantsReadBackAsTheyWere) {
  const bool holds = rc::check("constants of random bits survive the text", [] {
    const auto bits = *rc::gen::container<std::vector<uint32_t>>(rc::gen::arbitrary<uint32_t>());
    RC_PRE(!bits.empty());
    std::vector<double> values;
    for (const uint32_t word : bits) {
      const auto number = std::bit_cast<float>(word);
      values.push_back(std::isnan(number) ? 0.0 : number);
    }
    Module module;
    Function& main = module.add_function();
    const Shape shape(DType::kF32, {static_cast<int64_t>(values.size())});
    main.set_results({constant(main, Literal::from_doubles(shape, values))});
    for (const CpuPlugin& plugin : cpu_plugins()) {
      RC_ASSERT(run(plugin.client, module, {}).at(0) == values);
    }
  });
  EXPECT_TRUE(holds);
}

}  // namespace
}  // namespace ttpu::ir::testing
