// The CPU linear kernels against float64 sums over the weights that ttpu/io dequantizes: every
// instruction set of this processor, every encoding, odd shapes.
#include <atomic>
#include <cmath>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "tests/kernels/linear_testing.h"
#include "ttpu/base/error.h"
#include "ttpu/kernels/linear/cpu/kernel.h"

namespace ttpu::kernels::cpu {
namespace {

void check_product(Isa isa, Encoding encoding, DType w_dtype, DType x_dtype, DType y_dtype,
                   int64_t rows, int64_t out, int64_t in, TaskPool* pool, unsigned seed) {
  std::mt19937 rng(seed);
  const TestWeight w = make_weight(encoding, w_dtype, out, in, rng);
  const Rows x(x_dtype, rows, in, rng);
  const Rows bias(seed % 2 ? DType::kBF16 : DType::kF32, 1, out, rng);
  std::vector<uint8_t> y(static_cast<size_t>(rows * out) * (y_dtype == DType::kF32 ? 4 : 2), 0xff);
  const Product product{.weight = w.weight,
                        .bias = seed % 3 == 0 ? nullptr : bias.bytes.data(),
                        .bias_dtype = bias.dtype,
                        .y = y.data()};
  linear({.x = x.bytes.data(),
          .x_dtype = x_dtype,
          .y_dtype = y_dtype,
          .rows = rows,
          .products = {&product, 1}},
         pool, isa);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t j = 0; j < out; ++j) {
      Expected e = expected_at(x.values.data() + r * in, w.values.data() + j * in, in);
      const double tolerance = allowed(e, isa, w.weight, x_dtype, rows);
      if (product.bias != nullptr) e.value += bias.values[static_cast<size_t>(j)];
      const double rounding = y_dtype == DType::kBF16 ? (std::abs(e.value) + tolerance) / 256
                                                      : 1e-6 * std::abs(e.value);
      ASSERT_NEAR(result_at(y, y_dtype, static_cast<size_t>(r * out + j)), e.value,
                  tolerance + rounding)
          << isa_name(isa) << " " << encoding_name(encoding) << " w " << dtype_name(w_dtype)
          << " x " << dtype_name(x_dtype) << " [" << rows << ", " << in << "] x [" << out << ", "
          << in << "] at " << r << ", " << j;
    }
  }
}

TEST(LinearCpu, BlockedWeightsMatchFloat64ForEveryIsaAndShape) {
  auto pool = make_thread_pool(2);
  unsigned seed = 0;
  for (Isa isa : supported_isas()) {
    for (Encoding encoding : kBlocked) {
      const int64_t block = block_elements(encoding);
      for (int64_t rows : {1, 2, 3, 4, 6, 8, 13, 37}) {
        for (int64_t blocks : {1, 3, block == 32 ? 18 : 5}) {
          for (DType dtype : {DType::kBF16, DType::kF32}) {
            ++seed;
            const int64_t out = 1 + (seed * 29) % 71;
            check_product(isa, encoding, DType::kU8, dtype, seed % 2 ? DType::kF32 : dtype, rows,
                          out, blocks * block, pool.get(), seed);
            if (HasFatalFailure()) return;
          }
        }
      }
    }
  }
}

TEST(LinearCpu, DenseWeightsMatchFloat64ForEveryIsaAndShape) {
  auto pool = make_thread_pool(2);
  unsigned seed = 0;
  for (Isa isa : supported_isas()) {
    for (DType w_dtype : {DType::kBF16, DType::kF16, DType::kF32, DType::kS8}) {
      for (int64_t rows : {1, 2, 3, 4, 5, 7, 8, 12, 25, 70}) {
        for (int64_t in : {1, 7, 33, 64, 577, 1100}) {
          for (DType dtype : {DType::kBF16, DType::kF32}) {
            ++seed;
            const int64_t out = 1 + (seed * 31) % 133;
            check_product(isa, Encoding::kDense, w_dtype, dtype, seed % 2 ? DType::kF32 : dtype,
                          rows, out, in, pool.get(), seed);
            if (HasFatalFailure()) return;
          }
        }
      }
    }
  }
}

// Of one kind: how many rows make it worth packing depends on the weights of the call.
TEST(LinearCpu, ProductsThatShareActivationsEqualThoseAlone) {
  auto pool = make_thread_pool(2);
  std::mt19937 rng(5);
  const TestWeight blocked[] = {make_weight(Encoding::kQ4_K, DType::kU8, 40, 512, rng),
                                make_weight(Encoding::kQ6_K, DType::kU8, 9, 512, rng)};
  const TestWeight dense[] = {make_weight(Encoding::kDense, DType::kBF16, 33, 512, rng),
                              make_weight(Encoding::kDense, DType::kBF16, 70, 512, rng)};
  for (Isa isa : supported_isas()) {
    for (int64_t rows : {1, 3, 20, 150}) {
      for (const std::span<const TestWeight> weights : {std::span(blocked), std::span(dense)}) {
        const Rows x(DType::kBF16, rows, 512, rng);
        std::vector<std::vector<float>> together, alone;
        std::vector<Product> products;
        for (const TestWeight& w : weights) {
          together.emplace_back(static_cast<size_t>(rows * w.weight.out));
          alone.emplace_back(together.back().size());
        }
        size_t i = 0;
        for (const TestWeight& w : weights) {
          products.push_back({.weight = w.weight, .y = together[i].data()});
          const Product one{.weight = w.weight, .y = alone[i++].data()};
          linear({.x = x.bytes.data(), .y_dtype = DType::kF32, .rows = rows, .products = {&one, 1}},
                 pool.get(), isa);
        }
        linear({.x = x.bytes.data(), .y_dtype = DType::kF32, .rows = rows, .products = products},
               pool.get(), isa);
        EXPECT_EQ(together, alone) << isa_name(isa) << " rows " << rows;
      }
    }
  }
}

double activation_of(Activation gate, double x) {
  switch (gate) {
    case Activation::kSilu:
      return x / (1 + std::exp(-x));
    case Activation::kGeluTanh:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case Activation::kGelu:
      return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    default:
      return x;
  }
}

TEST(LinearCpu, GatedProductIsActivationTimesUp) {
  auto pool = make_thread_pool(2);
  const int64_t in = 96, out = 301;
  for (Isa isa : supported_isas()) {
    for (Activation gate : {Activation::kSilu, Activation::kGeluTanh, Activation::kGelu}) {
      for (int64_t rows : {1, 5, 19}) {
        std::mt19937 rng(static_cast<unsigned>(rows));
        TestWeight g = make_weight(Encoding::kDense, DType::kF32, out, in, rng);
        TestWeight u = make_weight(Encoding::kDense, DType::kF32, out, in, rng);
        // Gates from far below to far above zero.
        auto* stored = reinterpret_cast<float*>(g.bytes.data());
        for (size_t i = 0; i < g.values.size(); ++i) stored[i] = g.values[i] *= 12;
        const Rows x(DType::kF32, rows, in, rng);
        const Rows bias(DType::kF32, 1, out, rng);
        std::vector<float> y(static_cast<size_t>(rows * out));
        const Product products[] = {{.weight = g.weight, .bias = bias.bytes.data(), .y = y.data()},
                                    {.weight = u.weight}};
        linear({.x = x.bytes.data(),
                .x_dtype = DType::kF32,
                .y_dtype = DType::kF32,
                .rows = rows,
                .products = products,
                .gate = gate},
               pool.get(), isa);
        for (int64_t r = 0; r < rows; ++r) {
          for (int64_t j = 0; j < out; ++j) {
            const Expected a = expected_at(x.values.data() + r * in, g.values.data() + j * in, in);
            const Expected b = expected_at(x.values.data() + r * in, u.values.data() + j * in, in);
            const double z = a.value + bias.values[static_cast<size_t>(j)];
            const double tolerance =
                1e-5 * (std::abs(b.value) * (1 + a.magnitude) + std::abs(z) * b.magnitude);
            ASSERT_NEAR(y[static_cast<size_t>(r * out + j)], activation_of(gate, z) * b.value,
                        tolerance)
                << isa_name(isa) << " gate " << static_cast<int>(gate) << " z " << z;
          }
        }
      }
    }
  }
}

TEST(LinearCpu, ExpertRowsUseTheirOwnWeightInAnyOrder) {
  auto pool = make_thread_pool(2);
  const int64_t experts = 5, out = 19, in = 64;
  for (Isa isa : supported_isas()) {
    for (int64_t rows : {1, 7, 90}) {
      std::mt19937 rng(static_cast<unsigned>(rows));
      const TestWeight w = make_weight(Encoding::kDense, DType::kBF16, experts * out, in, rng);
      const Rows x(DType::kBF16, rows, in, rng);
      const Rows bias(DType::kBF16, experts, out, rng);
      std::vector<int32_t> ids(static_cast<size_t>(rows));
      for (int32_t& id : ids) id = static_cast<int32_t>(rng() % (experts + 1));  // the last: none
      std::vector<float> y(static_cast<size_t>(rows * out), -1);
      Weight first = w.weight;
      first.out = out;
      expert_linear({.x = x.bytes.data(),
                     .y_dtype = DType::kF32,
                     .rows = rows,
                     .expert_ids = ids.data(),
                     .experts = experts,
                     .first = first,
                     .bias = bias.bytes.data(),
                     .bias_dtype = DType::kBF16,
                     .y = y.data()},
                    pool.get(), isa);
      for (int64_t r = 0; r < rows; ++r) {
        const int64_t id = ids[static_cast<size_t>(r)];
        for (int64_t j = 0; j < out; ++j) {
          const float actual = y[static_cast<size_t>(r * out + j)];
          if (id == experts) {
            ASSERT_EQ(actual, 0);
            continue;
          }
          const float* row = w.values.data() + (id * out + j) * in;
          const Expected e = expected_at(x.values.data() + r * in, row, in);
          ASSERT_NEAR(actual, e.value + bias.values[static_cast<size_t>(id * out + j)],
                      1e-5 * e.magnitude + 1e-6);
        }
      }
    }
  }
}

TEST(LinearCpu, ShapesThatDoNotFitAreRefused) {
  const float x[40] = {};
  float y[4] = {};
  const auto run = [&](Weight weight) {
    const Product product{.weight = weight, .y = y};
    linear({.x = x,
            .x_dtype = DType::kF32,
            .y_dtype = DType::kF32,
            .rows = 1,
            .products = {&product, 1}},
           nullptr);
  };
  EXPECT_THROW(run({.encoding = Encoding::kQ8_0, .data = x, .out = 1, .in = 33}), Error);
  EXPECT_THROW(run({.dtype = DType::kF64, .data = x, .out = 1, .in = 4}), Error);
  EXPECT_THROW(run({.dtype = DType::kS8, .data = x, .out = 1, .in = 4}), Error);
}

TEST(ParallelFor, CallsFromSeveralThreadsCoverEveryItemOnce) {
  auto pool = make_thread_pool(3);
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 3; ++caller) {
    callers.emplace_back([&] {
      for (int round = 0; round < 300; ++round) {
        std::vector<std::atomic<int>> hits(static_cast<size_t>(1 + round % 50));
        parallel_for(pool.get(), static_cast<int64_t>(hits.size()), 1 + round % 3,
                     [&](int64_t begin, int64_t end) {
                       for (int64_t i = begin; i < end; ++i) ++hits[static_cast<size_t>(i)];
                     });
        for (const auto& hit : hits) ASSERT_EQ(hit.load(), 1);
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
}

TEST(ParallelFor, RunsOnTheCallerWithoutAPool) {
  int64_t sum = 0;
  parallel_for(nullptr, 10, 3, [&](int64_t begin, int64_t end) { sum += end - begin; });
  EXPECT_EQ(sum, 10);
}

}  // namespace
}  // namespace ttpu::kernels::cpu
