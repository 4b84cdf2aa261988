// Properties of the linear kernels and of the loops they run in, over random shapes, encodings,
// instruction sets and numbers of threads.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <memory>
#include <ostream>
#include <random>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "tests/kernels/linear_testing.h"
#include "tests/support/allocations.h"
#include "ttpu/kernels/linear/cpu/kernel.h"

namespace ttpu::kernels::cpu {
namespace {

struct Case {
  Isa isa = Isa::kPortable;
  Encoding encoding = Encoding::kDense;
  DType w_dtype = DType::kBF16, x_dtype = DType::kBF16;
  int64_t rows = 1, out = 1, in = 1;
  unsigned seed = 0;

  TestWeight weight() const {
    std::mt19937 rng(seed);
    return make_weight(encoding, w_dtype, out, in, rng);
  }
  Rows x() const {
    std::mt19937 rng(seed + 1);
    return {x_dtype, rows, in, rng};
  }
};

std::ostream& operator<<(std::ostream& to, const Case& c) {
  return to << isa_name(c.isa) << " " << encoding_name(c.encoding) << " w " << dtype_name(c.w_dtype)
            << " x " << dtype_name(c.x_dtype) << " [" << c.rows << ", " << c.in << "] x [" << c.out
            << ", " << c.in << "] seed " << c.seed;
}

Case draw_case() {
  Case c;
  c.isa = *rc::gen::elementOf(supported_isas());
  c.x_dtype = *rc::gen::element(DType::kBF16, DType::kF32);
  c.rows = *rc::gen::inRange<int64_t>(1, 60);
  c.out = *rc::gen::inRange<int64_t>(1, 220);
  c.seed = *rc::gen::inRange<unsigned>(0, 1 << 20);
  std::vector<Encoding> encodings(std::begin(kBlocked), std::end(kBlocked));
  encodings.push_back(Encoding::kDense);
  c.encoding = *rc::gen::elementOf(encodings);
  if (c.encoding == Encoding::kDense) {
    c.w_dtype = *rc::gen::element(DType::kBF16, DType::kF16, DType::kF32, DType::kS8);
    c.in = *rc::gen::inRange<int64_t>(1, 700);
  } else {
    const int64_t block = block_elements(c.encoding);
    c.in = block * *rc::gen::inRange<int64_t>(1, block == 32 ? 40 : 5);
  }
  return c;
}

std::vector<float> product_of(const Case& c, const TestWeight& w, const Rows& x, TaskPool* pool) {
  std::vector<float> y(static_cast<size_t>(c.rows * c.out), -1);
  const Product product{.weight = w.weight, .y = y.data()};
  linear({.x = x.bytes.data(),
          .x_dtype = c.x_dtype,
          .y_dtype = DType::kF32,
          .rows = c.rows,
          .products = {&product, 1}},
         pool, c.isa);
  return y;
}

TEST(LinearProperty, ResultsStayWithinTheStatedErrorsOfFloat64) {
  EXPECT_TRUE(rc::check([] {
    const Case c = draw_case();
    const auto pool = make_thread_pool(*rc::gen::inRange(1, 5));
    const TestWeight w = c.weight();
    const Rows x = c.x();
    const std::vector<float> y = product_of(c, w, x, pool.get());
    for (int64_t r = 0; r < c.rows; ++r) {
      for (int64_t j = 0; j < c.out; ++j) {
        const Expected e =
            expected_at(x.values.data() + r * c.in, w.values.data() + j * c.in, c.in);
        const double error = std::abs(y[static_cast<size_t>(r * c.out + j)] - e.value);
        if (!(error <= allowed(e, c.isa, w.weight, c.x_dtype, c.rows))) {
          RC_LOG() << c << " at " << r << ", " << j << ": off by " << error << "\n";
          RC_FAIL("outside the bound");
        }
      }
    }
  }));
}

TEST(LinearProperty, TheNumberOfThreadsChangesNoBit) {
  EXPECT_TRUE(rc::check([] {
    const Case c = draw_case();
    const auto pool = make_thread_pool(*rc::gen::inRange(2, 6));
    const TestWeight w = c.weight();
    const Rows x = c.x();
    RC_LOG() << c << "\n";
    RC_ASSERT(product_of(c, w, x, pool.get()) == product_of(c, w, x, nullptr));
  }));
}

TEST(LinearProperty, CallsAtOnceGiveWhatEachGivesAlone) {
  EXPECT_TRUE(rc::check([] {
    const auto pool = make_thread_pool(*rc::gen::inRange(1, 4));
    const std::vector<Case> cases = {draw_case(), draw_case(), draw_case()};
    std::vector<TestWeight> weights;
    std::vector<Rows> xs;
    std::vector<std::vector<float>> alone;
    for (const Case& c : cases) {
      weights.push_back(c.weight());
      xs.push_back(c.x());
      alone.push_back(product_of(c, weights.back(), xs.back(), nullptr));
    }
    std::atomic<int> different{0};
    std::vector<std::thread> callers;
    for (size_t i = 0; i < cases.size(); ++i) {
      callers.emplace_back([&, i] {
        for (int round = 0; round < 8; ++round) {
          if (product_of(cases[i], weights[i], xs[i], pool.get()) != alone[i]) ++different;
        }
      });
    }
    for (std::thread& caller : callers) caller.join();
    RC_ASSERT(different.load() == 0);
  }));
}

TEST(LinearProperty, ExpertsGiveTheProductOfTheirOwnWeight) {
  EXPECT_TRUE(rc::check([] {
    Case c = draw_case();
    const int64_t experts = *rc::gen::inRange<int64_t>(1, 9);
    const auto pool = make_thread_pool(2);
    const int64_t out = c.out;
    c.out = experts * out;
    const TestWeight stacked = c.weight();
    const Rows x = c.x();
    const auto ids = *rc::gen::container<std::vector<int32_t>>(
        static_cast<size_t>(c.rows),
        rc::gen::inRange<int32_t>(-1, static_cast<int32_t>(experts + 1)));
    std::vector<float> y(static_cast<size_t>(c.rows * out), -1);
    ExpertCall call{.x = x.bytes.data(),
                    .x_dtype = c.x_dtype,
                    .y_dtype = DType::kF32,
                    .rows = c.rows,
                    .expert_ids = ids.data(),
                    .experts = experts,
                    .first = stacked.weight,
                    .y = y.data()};
    call.first.out = out;
    expert_linear(call, pool.get(), c.isa);
    RC_LOG() << c << "\n";
    for (int64_t r = 0; r < c.rows; ++r) {
      const int64_t id = ids[static_cast<size_t>(r)];
      for (int64_t j = 0; j < out; ++j) {
        const float actual = y[static_cast<size_t>(r * out + j)];
        if (id < 0 || id >= experts) {
          RC_ASSERT(actual == 0.0f);
          continue;
        }
        const float* row = stacked.values.data() + (id * out + j) * c.in;
        const Expected e = expected_at(x.values.data() + r * c.in, row, c.in);
        // An expert with few rows is computed as few rows are, one with many as many.
        const double bound = std::max(allowed(e, c.isa, stacked.weight, c.x_dtype, 1),
                                      allowed(e, c.isa, stacked.weight, c.x_dtype, kGemmRows));
        RC_ASSERT(std::abs(actual - e.value) <= bound);
      }
    }
  }));
}

TEST(LinearProperty, RepeatedCallsDoNotAllocate) {
  const int64_t experts = 6, rows = 40;
  for (const Encoding encoding : {Encoding::kQ4_1, Encoding::kDense}) {
    const Case c{
        .isa = best_isa(), .encoding = encoding, .rows = rows, .out = 64 * experts, .in = 96};
    const TestWeight w = c.weight();
    const Rows x = c.x();
    std::vector<int32_t> ids(static_cast<size_t>(rows));
    for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i * 7 % experts);
    std::vector<float> y(static_cast<size_t>(rows * c.out));
    const auto calls = [&] {
      for (const int64_t some : {int64_t{1}, int64_t{5}, rows}) {
        const Product product{.weight = w.weight, .y = y.data()};
        linear(
            {.x = x.bytes.data(), .y_dtype = DType::kF32, .rows = some, .products = {&product, 1}},
            nullptr, c.isa);
        ExpertCall call{.x = x.bytes.data(),
                        .y_dtype = DType::kF32,
                        .rows = some,
                        .expert_ids = ids.data(),
                        .experts = experts,
                        .first = w.weight,
                        .y = y.data()};
        call.first.out = 64;
        expert_linear(call, nullptr, c.isa);
      }
    };
    calls();
    const int64_t before = testing::allocations();
    for (int i = 0; i < 10; ++i) calls();
    EXPECT_EQ(testing::allocations() - before, 0) << encoding_name(encoding);
  }
}

TEST(ParallelForProperty, EveryItemIsVisitedOnceWhateverTheGrainAndThreads) {
  EXPECT_TRUE(rc::check([] {
    const auto pool = make_thread_pool(*rc::gen::inRange(1, 7));
    const int64_t count = *rc::gen::inRange<int64_t>(0, 3000);
    const int64_t grain = *rc::gen::inRange<int64_t>(1, 80);
    std::vector<std::atomic<int>> visits(static_cast<size_t>(count));
    std::atomic<bool> too_long{false};
    parallel_for(pool.get(), count, grain, [&](int64_t begin, int64_t end) {
      if (end - begin > grain) too_long = true;
      for (int64_t i = begin; i < end; ++i) ++visits[static_cast<size_t>(i)];
    });
    RC_ASSERT(!too_long.load());
    for (const auto& visit : visits) RC_ASSERT(visit.load() == 1);
  }));
}

}  // namespace
}  // namespace ttpu::kernels::cpu
