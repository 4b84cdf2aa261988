// The linear operators in programs: the StableHLO reference and the CPU kernel through the plugin,
// both against float64, on both CPU plugins.
#include "ttpu/kernels/linear/linear.h"

#include <map>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "tests/kernels/linear_testing.h"
#include "ttpu/base/error.h"
#include "ttpu/ir/ir.h"
#include "ttpu/pjrt/client.h"

namespace ttpu::kernels {
namespace {

using cpu::make_weight;
using cpu::Rows;
using cpu::TestWeight;

const pjrt::Client* client_of(const std::string& name) {
  static std::map<std::string, std::unique_ptr<pjrt::Client>> clients;
  auto& client = clients[name];
  if (client != nullptr) return client.get();
  for (const pjrt::PluginLocation& location : pjrt::locate_plugins()) {
    if (location.name != name) continue;
    client = std::make_unique<pjrt::Client>(pjrt::Client::create(pjrt::load_plugin(location.path)));
    return client.get();
  }
  return nullptr;
}

class LinearProgram : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    client_ = client_of(GetParam());
    if (client_ == nullptr) GTEST_SKIP() << "plugin " << GetParam() << " is not installed";
  }
  std::vector<Target> targets() const {
    std::vector<Target> list = {{Platform::kCpu, false}};
    if (register_cpu_kernels(client_->plugin())) list.push_back({Platform::kCpu, true});
    return list;
  }
  // Arguments of a program under construction and their data.
  struct Program {
    ir::Module module;
    ir::Function& main = module.add_function();
    std::vector<pjrt::Buffer> buffers;
  };
  ir::Value add(Program& program, const void* data, Shape shape) const {
    program.buffers.push_back(client_->to_device(data, shape));
    return program.main.add_argument(shape);
  }
  ir::Value add(Program& program, const Rows& rows, Dims dims) const {
    return add(program, rows.bytes.data(), Shape(rows.dtype, std::move(dims)));
  }
  WeightOperand add(Program& program, const TestWeight& w, Dims dims) const {
    const bool blocked = w.weight.encoding != Encoding::kDense;
    Dims stored = dims;
    if (blocked) stored.back() = cpu::row_bytes(w.weight);
    WeightOperand operand{
        add(program, w.bytes.data(), Shape(blocked ? DType::kU8 : w.weight.dtype, stored)),
        w.weight.encoding,
        dims,
        {}};
    if (!blocked && w.weight.dtype == DType::kS8) {
      operand.scales =
          add(program, w.scales.data(), Shape(DType::kF32, Dims(dims.begin(), dims.end() - 1)));
    }
    return operand;
  }
  // The results, each as f32.
  std::vector<std::vector<float>> run(Program& program, const ir::Values& results) const {
    ir::Values wide;
    for (const ir::Value& result : results) wide.push_back(ir::convert(result, DType::kF32));
    program.main.set_results(wide);
    const auto executable = client_->compile(program.module.to_string());
    std::vector<const pjrt::Buffer*> arguments;
    for (const pjrt::Buffer& buffer : program.buffers) arguments.push_back(&buffer);
    std::vector<std::vector<float>> values;
    for (const pjrt::Buffer& y : executable.execute(arguments)) {
      values.push_back(y.to_vector<float>());
    }
    return values;
  }
  const pjrt::Client* client_ = nullptr;
};

// What rounding of weights and activations to bf16 or 8 bits may cost on either path.
double loose(const cpu::Expected& e, DType x_dtype) {
  const double sums = 2e-5 * e.magnitude + 1e-5;
  return x_dtype == DType::kF32 ? sums : sums + e.int8_error + e.magnitude / 200;
}

TEST_P(LinearProgram, EveryWeightFormMatchesFloat64AsReferenceAndAsKernel) {
  std::vector<std::pair<Encoding, DType>> forms;
  for (Encoding encoding : cpu::kBlocked) forms.push_back({encoding, DType::kU8});
  for (DType dtype : {DType::kBF16, DType::kF16, DType::kF32, DType::kS8}) {
    forms.push_back({Encoding::kDense, dtype});
  }
  const int64_t in = 512, out = 21;
  for (const Target& target : targets()) {
    for (const auto& [encoding, dtype] : forms) {
      for (int64_t rows : {1, 11}) {
        for (DType x_dtype : {DType::kBF16, DType::kF32}) {
          std::mt19937 rng(static_cast<unsigned>(rows));
          const TestWeight w = make_weight(encoding, dtype, out, in, rng);
          const Rows x(x_dtype, rows, in, rng), bias(DType::kF32, 1, out, rng);
          Program program;
          const ir::Value input = add(program, x, {1, rows, in});
          const WeightOperand operand = add(program, w, {out, in});
          const ir::Value shift = add(program, bias, {out});
          const auto y = run(program, {linear(target, input, operand, shift, DType::kF32)}).front();
          ASSERT_EQ(y.size(), static_cast<size_t>(rows * out));
          for (int64_t i = 0; i < rows * out; ++i) {
            const int64_t j = i % out;
            const cpu::Expected e =
                cpu::expected_at(x.values.data() + i / out * in, w.values.data() + j * in, in);
            ASSERT_NEAR(y[static_cast<size_t>(i)],
                        e.value + static_cast<double>(bias.values[static_cast<size_t>(j)]),
                        loose(e, x_dtype))
                << encoding_name(encoding) << " " << dtype_name(dtype) << " x "
                << dtype_name(x_dtype) << " rows " << rows << " kernel " << target.custom_calls;
          }
        }
      }
    }
  }
}

TEST_P(LinearProgram, KernelsAreTakenByThePlugin) {
  // The older plugin may refuse this version of handlers; programs then take the references.
  const bool taken = register_cpu_kernels(client_->plugin());
  if (std::string(GetParam()) == "cpu") {
    EXPECT_TRUE(taken);
  }
  EXPECT_EQ(register_cpu_kernels(client_->plugin()), taken) << "the second time";
}

TEST_P(LinearProgram, GroupsAndGatesGiveTheSameWithAndWithoutKernel) {
  for (Activation activation : {Activation::kSilu, Activation::kGeluTanh, Activation::kGelu}) {
    for (int64_t rows : {2, 17}) {
      std::vector<std::vector<std::vector<float>>> all;
      for (const Target& target : targets()) {
        std::mt19937 rng(3);
        const TestWeight a = make_weight(Encoding::kDense, DType::kF32, 48, 64, rng);
        const TestWeight b = make_weight(Encoding::kDense, DType::kF32, 48, 64, rng);
        const Rows x(DType::kF32, rows, 64, rng), bias(DType::kF32, 1, 48, rng);
        Program program;
        const ir::Value input = add(program, x, {rows, 64});
        const WeightOperand wa = add(program, a, {48, 64}), wb = add(program, b, {48, 64});
        const ir::Value shift = add(program, bias, {48});
        ir::Values results = linear_group(target, input, {wa, wb}, {std::nullopt, shift});
        results.push_back(gated_linear(target, input, wa, wb, activation, shift));
        all.push_back(run(program, results));
      }
      for (size_t t = 1; t < all.size(); ++t) {
        for (size_t r = 0; r < all[0].size(); ++r) {
          for (size_t i = 0; i < all[0][r].size(); ++i) {
            ASSERT_NEAR(all[t][r][i], all[0][r][i], 2e-4) << "result " << r << " at " << i;
          }
        }
      }
    }
  }
}

TEST_P(LinearProgram, ExpertRowsMatchFloat64HoweverManyTheyAre) {
  const int64_t experts = 6, out = 10, in = 64;
  for (const Target& target : targets()) {
    for (const Encoding encoding : {Encoding::kDense, Encoding::kQ8_0}) {
      for (int64_t rows : {3, 40, 700}) {
        std::mt19937 rng(9);
        TestWeight w = make_weight(encoding, DType::kF32, experts * out, in, rng);
        const Rows x(DType::kF32, rows, in, rng), bias(DType::kF32, experts, out, rng);
        std::vector<int32_t> ids(static_cast<size_t>(rows));
        for (int32_t& id : ids) id = static_cast<int32_t>(rng() % (experts + 1)) - 1;  // -1: none
        Program program;
        const ir::Value input = add(program, x, {rows, in});
        const ir::Value which = add(program, ids.data(), Shape(DType::kS32, {rows}));
        const WeightOperand operand = add(program, w, {experts, out, in});
        const ir::Value shift = add(program, bias, {experts, out});
        const auto y = run(program, {expert_linear(target, input, which, operand, shift)})[0];
        for (int64_t i = 0; i < rows * out; ++i) {
          const int64_t id = ids[static_cast<size_t>(i / out)];
          const float actual = y[static_cast<size_t>(i)];
          if (id < 0) {
            ASSERT_EQ(actual, 0);
            continue;
          }
          const int64_t row = id * out + i % out;
          const cpu::Expected e =
              cpu::expected_at(x.values.data() + i / out * in, w.values.data() + row * in, in);
          ASSERT_NEAR(actual, e.value + static_cast<double>(bias.values[static_cast<size_t>(row)]),
                      loose(e, DType::kF32));
        }
      }
    }
  }
}

TEST_P(LinearProgram, EmbeddingTakesAndExpandsRows) {
  std::mt19937 rng(2);
  for (const Encoding encoding : {Encoding::kDense, Encoding::kQ4_1, Encoding::kQ6_K}) {
    const TestWeight w = make_weight(encoding, DType::kF16, 30, 256, rng);
    const std::vector<int32_t> tokens = {29, 0, 7, 7};
    Program program;
    const WeightOperand table = add(program, w, {30, 256});
    const ir::Value ids = add(program, tokens.data(), Shape(DType::kS32, {4}));
    const auto y = run(program, {embedding({}, table, ids, DType::kF32)})[0];
    for (size_t i = 0; i < y.size(); ++i) {
      const size_t row = static_cast<size_t>(tokens[i / 256]);
      const float expected = w.values[row * 256 + i % 256];
      ASSERT_NEAR(y[i], expected, 1e-6 + 1e-5 * std::abs(expected)) << encoding_name(encoding);
    }
  }
}

TEST_P(LinearProgram, ConcurrentExecutionsDoNotDisturbEachOther) {
  std::mt19937 rng(4);
  const int64_t rows = 3, out = 700, in = 512;
  const TestWeight w = make_weight(Encoding::kDense, DType::kBF16, out, in, rng);
  const Rows x(DType::kBF16, rows, in, rng);
  Program program;
  const ir::Value input = add(program, x, {rows, in});
  const WeightOperand operand = add(program, w, {out, in});
  program.main.set_results({linear(targets().back(), input, operand, {}, DType::kF32)});
  const auto executable = client_->compile(program.module.to_string());
  const std::vector<const pjrt::Buffer*> arguments = {&program.buffers[0], &program.buffers[1]};
  const auto first = executable.execute(arguments)[0].to_vector<float>();
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) {
        EXPECT_EQ(executable.execute(arguments)[0].to_vector<float>(), first);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(LinearOperator, MismatchedShapesAreRefusedWithBothShapes) {
  ir::Module module;
  ir::Function& main = module.add_function();
  const ir::Value x = main.add_argument(Shape(DType::kF32, {2, 64}));
  const ir::Value w = main.add_argument(Shape(DType::kF32, {8, 32}));
  try {
    linear({}, x, {w, Encoding::kDense, {8, 32}, {}});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kInvalidArgument);
    EXPECT_NE(std::string(error.what()).find("tensor<2x64xf32>"), std::string::npos);
    EXPECT_NE(std::string(error.what()).find("[8, 32]"), std::string::npos);
  }
  EXPECT_THROW(linear({}, x, {w, Encoding::kQ8_0, {8, 32}, {}}), Error);
}

INSTANTIATE_TEST_SUITE_P(Cpu, LinearProgram, testing::Values("cpu", "cpu-0.81"),
                         [](const auto& given) {
                           return std::string(given.param) == "cpu" ? "Newer" : "Older";
                         });

}  // namespace
}  // namespace ttpu::kernels
