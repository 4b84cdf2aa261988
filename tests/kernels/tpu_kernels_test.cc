// Where TPU kernels come from, with a tool made here in place of the one that needs jax.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <sstream>
#include <utility>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "program_testing.h"
#include "ttpu/base/file.h"
#include "ttpu/ir/ir.h"
#include "ttpu/kernels/linear/expert_rows.h"
#include "ttpu/kernels/linear/tpu.h"
#include "ttpu/kernels/ragged_paged_attention/ragged_paged_attention.h"
#include "ttpu/kernels/sampling/sampling.h"
#include "ttpu/kernels/sequence_attention/sequence_attention.h"

namespace ttpu::kernels {
namespace {

namespace fs = std::filesystem;

Target tpu_target(const std::shared_ptr<TpuKernels>& kernels) {
  Target target;
  target.platform = Platform::kTpu;
  target.tpu = kernels;
  return target;
}

class TpuKernelsTest : public testing::Test {
 protected:
  void SetUp() override {
    test_client();  // found in the cache that is left here
    // Each test has its own: they run beside each other.
    const std::string test = testing::UnitTest::GetInstance()->current_test_info()->name();
    cache_ = fs::path(testing::TempDir()) / fmt::format("tpu_kernels_cache_{}_{}", test, getpid());
    fs::remove_all(cache_);
    before_ = env_or("TTPU_CACHE");
    setenv("TTPU_CACHE", cache_.c_str(), 1);
  }
  void TearDown() override {
    fs::remove_all(cache_);
    if (before_.empty()) {
      unsetenv("TTPU_CACHE");
    } else {
      setenv("TTPU_CACHE", before_.c_str(), 1);
    }
  }

  // Called as `python lower.py KEY NAME OUT`.
  void install(const std::string& script) const {
    const fs::path venv = cache_ / "tpu-kernels-venv";
    fs::create_directories(venv / "bin");
    fs::create_directories(venv / "tool");
    write_file(venv / "tool" / "lower.py", "");
    write_file(venv / "tool" / "token_filter.py", "");
    write_file(venv / "bin" / "python", "#!/bin/sh\n" + script);
    fs::permissions(venv / "bin" / "python", fs::perms::owner_all);
  }

  // A program over a part of each page, a cache of rows.
  static std::unique_ptr<ir::Module> divided_program(const std::shared_ptr<TpuKernels>& kernels,
                                                     int64_t head_dim = 128, int64_t slots = 4) {
    auto module = std::make_unique<ir::Module>();
    ir::Function& f = module->add_function();
    const auto argument = [&f](DType dtype, Dims dims) {
      return f.add_argument(Shape(dtype, std::move(dims)));
    };
    const ir::Value q = argument(DType::kBF16, {5, 2, head_dim});
    const ir::Value kv = argument(DType::kBF16, {5, 1, head_dim});
    const ir::Value cache =
        argument(DType::kBF16, row_cache({6, slots, 2, head_dim}, DType::kBF16));
    const RaggedBatch batch{argument(DType::kS32, {2}), argument(DType::kS32, {6}),
                            argument(DType::kS32, {3}), argument(DType::kS32, {3})};
    AttentionOptions options;
    options.sinks = argument(DType::kF32, {2});
    // Both devices have the same: what one has is the maximum, and twice that is the sum.
    options.context =
        ContextParts{2, ir::scalar(f, DType::kS32, 1), [](ir::Value x) { return x + x; },
                     [](ir::Value x) { return x; }};
    const Target target = tpu_target(kernels);
    const AttentionResult result = ragged_paged_attention(target, q, kv, kv, cache, batch, options);
    f.set_results({ir::convert(result.output, DType::kF32), result.cache});
    module->verify();
    return module;
  }

  // A program with `calls` calls of the operator; its text.
  static std::string program(const std::shared_ptr<TpuKernels>& kernels, int64_t head_dim,
                             int calls = 1, DType cache_dtype = DType::kBF16, bool rows = false) {
    ir::Module module;
    ir::Function& f = module.add_function();
    const auto argument = [&f](DType dtype, Dims dims) {
      return f.add_argument(Shape(dtype, std::move(dims)));
    };
    const ir::Value q = argument(DType::kBF16, {5, 4, head_dim});
    const ir::Value kv = argument(DType::kBF16, {5, 2, head_dim});
    const Dims plain = {6, 4, 4, cache_elements(cache_dtype, head_dim)};
    ir::Value cache = argument(cache_dtype, rows ? row_cache(plain, cache_dtype) : plain);
    const RaggedBatch batch{argument(DType::kS32, {2}), argument(DType::kS32, {6}),
                            argument(DType::kS32, {3}), argument(DType::kS32, {3})};
    const Target target = tpu_target(kernels);
    ir::Values results;
    for (int i = 0; i < calls; ++i) {
      const AttentionResult result = ragged_paged_attention(target, q, kv, kv, cache, batch, {});
      cache = result.cache;
      results.push_back(result.output);
    }
    results.push_back(cache);
    f.set_results(results);
    module.verify();
    return module.to_string();
  }

  static size_t count(const std::string& text, const std::string& part) {
    size_t found = 0;
    for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) {
      ++found;
    }
    return found;
  }

  fs::path cache_;
  std::string before_;
  std::shared_ptr<TpuKernels> kernels_ = std::make_shared<TpuKernels>("v5e");
};

constexpr const char* kKeepsKeys =
    "echo \"$2\" >> \"$TTPU_CACHE/keys\"; echo \"// lowered: $2\" > \"$4\"\n";
constexpr const char* kWrites =
    "echo run >> \"$TTPU_CACHE/runs\"; echo \"// lowered: $2\" > \"$4\"\n";

TEST_F(TpuKernelsTest, WithoutTheToolTheReferenceIsUsedAndTheReasonSaysWhatToDo) {
  EXPECT_EQ(count(program(kernels_, 128), "\"stablehlo.scatter\"("), 1);
  ASSERT_EQ(kernels_->choices().size(), 1);
  EXPECT_FALSE(kernels_->used());
  EXPECT_NE(kernels_->choices()[0].reason.find("make tpu-kernels"), std::string::npos);
}

TEST_F(TpuKernelsTest, LayersThatAreAlikeCallOneFunctionThatIsLoweredOnce) {
  install(kWrites);
  const std::string text = program(kernels_, 128, 3);
  EXPECT_EQ(count(text, "// lowered: "), 1);
  EXPECT_EQ(count(text, "func.call"), 3);
  EXPECT_EQ(count(text, "\"stablehlo.scatter\"("), 0);
  EXPECT_TRUE(kernels_->used());
  program(std::make_shared<TpuKernels>("v5e"), 128);  // another process finds what is kept
  EXPECT_EQ(count(read_file(cache_ / "runs"), "run"), 1);
  program(std::make_shared<TpuKernels>("v6e"), 128);
  EXPECT_EQ(count(read_file(cache_ / "runs"), "run"), 2);
}

TEST_F(TpuKernelsTest, WhatTheToolRefusesIsSaidAndNotAskedAgain) {
  install("echo run >> \"$TTPU_CACHE/runs\"; echo 'does not fit VMEM' >&2; exit 3\n");
  for (int i = 0; i < 2; ++i) {
    const auto kernels = std::make_shared<TpuKernels>("v5e");
    EXPECT_EQ(count(program(kernels, 128), "\"stablehlo.scatter\"("), 1);
    EXPECT_EQ(kernels->choices().at(0).reason, "does not fit VMEM");
  }
  EXPECT_EQ(count(read_file(cache_ / "runs"), "run"), 1);
}

TEST_F(TpuKernelsTest, AToolThatDiesIsAReasonToo) {
  install("echo 'ImportError: no jax' >&2; exit 1\n");
  EXPECT_EQ(count(program(kernels_, 128), "\"stablehlo.scatter\"("), 1);
  EXPECT_EQ(kernels_->choices().at(0).reason, "ImportError: no jax");
}

TEST_F(TpuKernelsTest, ShapesThatTheKernelLacksAreNamed) {
  install(kWrites);
  program(kernels_, 80);
  program(kernels_, 128, 1, DType::kS8);
  ASSERT_EQ(kernels_->choices().size(), 2);
  EXPECT_NE(kernels_->choices()[0].reason.find("heads of 80"), std::string::npos);
  EXPECT_NE(kernels_->choices()[1].reason.find("int8"), std::string::npos);
  EXPECT_FALSE(fs::exists(cache_ / "runs"));
}

// A kernel that says 3 of every output and 0.5 of every logarithm.
constexpr const char* kDivided = R"(echo "$2" > "$TTPU_CACHE/key"
cat > "$4" <<END
func.func private @"$3"(%q: tensor<5x2x128xbf16>, %k: tensor<5x1x128xbf16>, %v: tensor<5x1x128xbf16>,
    %cache: tensor<6x2x2x256xbf16>, %lens: tensor<2xi32>, %pages: tensor<6xi32>, %cu: tensor<3xi32>,
    %ends: tensor<3xi32>, %index: tensor<i32>) -> (tensor<5x2x128xf32>, tensor<5x2xf32>, tensor<6x2x2x256xbf16>) {
  %out = stablehlo.constant dense<3.0> : tensor<5x2x128xf32>
  %log = stablehlo.constant dense<0.5> : tensor<5x2xf32>
  return %out, %log, %cache : tensor<5x2x128xf32>, tensor<5x2xf32>, tensor<6x2x2x256xbf16>
}
END
)";

TEST_F(TpuKernelsTest, PartsOfSequencesAreJoinedByTheirWeights) {
  install(kDivided);
  const auto module = divided_program(kernels_);
  ASSERT_TRUE(kernels_->used()) << kernels_->choices().at(0).reason;
  const Json key = Json::parse(read_file(cache_ / "key"));
  EXPECT_EQ(key.at("parts"), 2);
  EXPECT_EQ(key.at("page_size"), 4) << "slots of a device";
  EXPECT_EQ(key.at("sinks"), false) << "they are counted once, where the parts are joined";

  const pjrt::LoadedExecutable program = test_client().compile(module->to_string());
  std::vector<pjrt::Buffer> buffers;
  for (const ir::Value argument : module->functions()[0]->arguments()) {
    std::vector<char> bytes(static_cast<size_t>(argument.shape().byte_size()));
    buffers.push_back(test_client().to_device(bytes.data(), argument.shape()));
  }
  const std::vector<float> sinks = {1, -2};
  buffers.back() = test_client().to_device(sinks.data(), Shape(DType::kF32, {2}));
  std::vector<const pjrt::Buffer*> pointers;
  for (const pjrt::Buffer& buffer : buffers) pointers.push_back(&buffer);
  const auto out = program.execute(pointers)[0].to_vector<float>();
  for (size_t i = 0; i < out.size(); ++i) {
    const double both = 2 * std::exp(0.5);
    const double expected = 3 * both / (both + std::exp(sinks[i / 128 % 2]));
    ASSERT_NEAR(out[i], expected, 0.01 * expected) << i;
  }
}

TEST_F(TpuKernelsTest, RowsOfEveryTypeHaveAKernel) {
  install(kWrites);
  for (const DType dtype : {DType::kBF16, DType::kF8E4M3FN, DType::kS8}) {
    const std::string text = program(kernels_, 128, 2, dtype, true);
    EXPECT_EQ(count(text, "// lowered: "), 1) << dtype_name(dtype);
    EXPECT_EQ(count(text, "\"stablehlo.scatter\"("), 0) << dtype_name(dtype);
  }
  ASSERT_EQ(kernels_->choices().size(), 1);
  EXPECT_TRUE(kernels_->used());
  EXPECT_EQ(row_cache({6, 4, 4, 132}, DType::kS8), Dims({6, 2, 4, 512})) << "scales behind a page";
}

TEST_F(TpuKernelsTest, CachesThatTheWheelsKernelsLackAreOfRows) {
  const Dims cache = {6, 16, 4, 128};
  const auto wants = [](const Dims& dims, DType dtype, bool divided = false, bool sinks = false) {
    return wants_row_cache(dims, dtype, divided, sinks);
  };
  EXPECT_FALSE(wants(cache, DType::kBF16));
  EXPECT_FALSE(wants(cache, DType::kF8E4M3FN));
  EXPECT_TRUE(wants(cache, DType::kS8));
  EXPECT_TRUE(wants(cache, DType::kBF16, true));
  EXPECT_TRUE(wants(cache, DType::kBF16, false, true));
  EXPECT_FALSE(wants({6, 16, 4, 64}, DType::kBF16, false, true));
  EXPECT_TRUE(wants({6, 16, 2, 64}, DType::kBF16)) << "one head of 64 fills half a word";
  EXPECT_TRUE(wants({6, 16, 6, 128}, DType::kF8E4M3FN));
  EXPECT_EQ(paired_cache({6, 16, 4, 64}), Dims({6, 16, 2, 128}));
  EXPECT_EQ(paired_cache(cache), cache);
}

TEST_F(TpuKernelsTest, PartsThatTheKernelLacksAreNamed) {
  install(kDivided);
  divided_program(kernels_, 80);
  divided_program(kernels_, 128, 3);
  ASSERT_EQ(kernels_->choices().size(), 2);
  EXPECT_NE(kernels_->choices()[0].reason.find("heads of 80"), std::string::npos);
  EXPECT_NE(kernels_->choices()[1].reason.find("3 slots of a block"), std::string::npos);
  EXPECT_FALSE(fs::exists(cache_ / "key"));
}

// The texts of a program of two equal layers of whole sequences, and of its gradient in a module of
// its own.
std::pair<std::string, std::string> sequence_programs(const std::shared_ptr<TpuKernels>& kernels,
                                                      int64_t length = 128,
                                                      DType dtype = DType::kBF16) {
  const Target target = tpu_target(kernels);
  const auto arguments = [&](ir::Function& f) {
    ir::Values made;
    for (const int64_t heads : {4, 2, 2, 4}) {
      made.push_back(f.add_argument(Shape(dtype, {2 * length, heads, 64})));
    }
    return made;
  };
  ir::Module module;
  ir::Function& f = module.add_function();
  const ir::Values a = arguments(f);
  SequenceAttentionOptions options;
  options.sliding_window = 3;
  const ir::Value first = sequence_attention(target, a[0], a[1], a[2], length, options);
  const ir::Value second = sequence_attention(target, a[0], a[1], a[2], length, options);
  f.set_results({first, second});
  module.verify();
  const ir::CustomGradient& gradient =
      *module.find_function(first.producer()->attributes.get<ir::Symbol>("callee").name)
           ->gradient();
  ir::Module other;
  ir::Function& g = other.add_function();
  const ir::Values b = arguments(g);
  const ir::Values given = {b[0], b[1], b[2]};
  g.set_results(gradient.backward(given, gradient.forward(given), {b[3]}));
  other.verify();
  return {module.to_string(), other.to_string()};
}

TEST_F(TpuKernelsTest, WholeSequencesAndTheirGradientHaveAKernelEach) {
  install(kKeepsKeys);
  const auto [program, gradient] = sequence_programs(kernels_);
  EXPECT_EQ(count(program, "// lowered: "), 1);
  EXPECT_EQ(count(gradient, "// lowered: "), 2);
  EXPECT_EQ(count(program + gradient, "stablehlo.dot_general"), 0);
  ASSERT_EQ(kernels_->choices().size(), 2);
  EXPECT_EQ(kernels_->choices()[1].op, "sequence_attention_gradient");
  std::istringstream keys(read_file(cache_ / "keys"));
  for (const char* kernel : {"sequence_attention", "sequence_attention_gradient"}) {
    std::string line;
    std::getline(keys, line);
    const Json key = Json::parse(line);
    EXPECT_EQ(key.at("kernel"), kernel);
    EXPECT_EQ(key.at("sequences"), 2);
    EXPECT_EQ(key.at("pairs"), 1 + 2 + 126 * 3) << "a window of 3";
  }
}

TEST_F(TpuKernelsTest, WholeSequencesThatTheKernelLacksAreNamed) {
  install(kWrites);
  EXPECT_NE(sequence_programs(kernels_, 100).first.find("stablehlo.dot_general"),
            std::string::npos);
  sequence_programs(kernels_, 128, DType::kF32);
  ASSERT_EQ(kernels_->choices().size(), 4) << "each for the operator and for its gradient";
  EXPECT_NE(kernels_->choices()[0].reason.find("sequences of 100"), std::string::npos);
  EXPECT_NE(kernels_->choices()[3].reason.find("queries of f32"), std::string::npos);
  EXPECT_FALSE(fs::exists(cache_ / "runs"));
}

TEST_F(TpuKernelsTest, AfterTheCompilersRefusalSequencesHaveTheReference) {
  install(kWrites);
  const auto before = sequence_programs(kernels_);
  ASSERT_TRUE(kernels_->take_back("Ran out of memory in memory space vmem"));
  const auto after = sequence_programs(kernels_);
  EXPECT_EQ(count(after.first + after.second, "// lowered: "), 0);
  EXPECT_GT(count(after.second, "stablehlo.dot_general"), 0);
  EXPECT_FALSE(kernels_->used());
}

// A kernel that says of every row the number of its expert, or of experts where it has none.
constexpr const char* kNumbers = R"(echo "$2" >> "$TTPU_CACHE/keys"
cat > "$4" <<END
func.func private @"$3"(%x: tensor<9x32xbf16>, %experts: tensor<3xi32>, %tiles: tensor<3xi32>, %bounds: tensor<4xi32>,
    %visits: tensor<i32>, %w: tensor<3x32x32xbf16>, %bias: tensor<3x32xf32>) -> tensor<9x32xbf16> {
  %row = stablehlo.iota dim = 0 : tensor<9x4xi32>
  %all = stablehlo.broadcast_in_dim %bounds, dims = [1] : (tensor<4xi32>) -> tensor<9x4xi32>
  %begun = stablehlo.compare LE, %all, %row : (tensor<9x4xi32>, tensor<9x4xi32>) -> tensor<9x4xi1>
  %ones = stablehlo.convert %begun : (tensor<9x4xi1>) -> tensor<9x4xbf16>
  %first = stablehlo.constant dense<-1.0> : tensor<bf16>
  %n = stablehlo.reduce(%ones init: %first) applies stablehlo.add across dimensions = [1] : (tensor<9x4xbf16>, tensor<bf16>) -> tensor<9xbf16>
  %y = stablehlo.broadcast_in_dim %n, dims = [0] : (tensor<9xbf16>) -> tensor<9x32xbf16>
  return %y : tensor<9x32xbf16>
}
END
)";

ExpertProduct expert_product(ir::Function& f, const Dims& dims, DType dtype = DType::kBF16) {
  ExpertProduct product;
  product.weight.value = f.add_argument(Shape(dtype, dims));
  product.weight.dims = dims;
  product.bias = f.add_argument(Shape(DType::kBF16, {dims[0], dims[1]}));
  return product;
}

// [experts, groups, group, out] of i4.
ExpertProduct product_of_groups(ir::Function& f, int64_t experts, int64_t out, const Dims& groups,
                                DType scales) {
  ExpertProduct product;
  product.weight.dims = {experts, out, groups[0] * groups[1]};
  product.weight.value = f.add_argument(Shape(DType::kS4, {experts, groups[0], groups[1], out}));
  product.weight.scales = f.add_argument(Shape(scales, {experts, out, groups[0]}));
  return product;
}

TEST_F(TpuKernelsTest, RowsAreSortedOnceForTheProductsOfTheirExperts) {
  install(kNumbers);
  const Target target = tpu_target(kernels_);
  TestProgram program;
  const std::vector<int32_t> numbers = {2, 0, -1, 2, 1, 0, 3, 2, 0};
  const ir::Value ids = program.argument(numbers, DType::kS32, {9});
  const ir::Value x = program.argument(std::vector<uint16_t>(9 * 32), DType::kBF16, {9, 32});
  ExpertProduct product;
  product.weight.dims = {3, 32, 32};
  product.weight.value =
      program.argument(std::vector<uint16_t>(3 * 32 * 32), DType::kBF16, product.weight.dims);
  product.bias = program.argument(std::vector<uint16_t>(3 * 32), DType::kBF16, {3, 32});
  const ExpertRows rows(target, ids, DType::kBF16, {product, product});
  const ir::Value inner = rows.linear(rows.ordered(x), product);
  const ir::Value y = rows.restored(rows.linear(inner, product));
  ASSERT_TRUE(kernels_->used()) << kernels_->choices().at(0).reason;
  const auto out = program.run({ir::convert(y, DType::kF32)})[0].to_vector<float>();
  const std::string text = program.main().module().to_string();
  EXPECT_EQ(count(text, "\"stablehlo.sort\"("), 2) << "and one back";
  for (size_t i = 0; i < out.size(); ++i) {
    const int32_t id = numbers[i / 32];
    ASSERT_EQ(out[i], id >= 0 && id < 3 ? id : 0) << i;
  }
  const std::string keys = read_file(cache_ / "keys");
  EXPECT_EQ(count(keys, "\n"), 1);
  const Json key = Json::parse(keys);
  EXPECT_EQ(key.at("tile"), 16);
  EXPECT_EQ(key.at("visits"), 3);
  EXPECT_EQ(key.at("form"), "dense");
  EXPECT_EQ(key.at("flops"), 2.0 * 3 * 16 * 32 * 32) << "whole tiles";
  EXPECT_EQ(key.at("bytes"), 2 * 9 * (32 + 32) + 3 * 32 * (32 * 2 + 4));
}

TEST_F(TpuKernelsTest, EveryTileIsVisitedByTheExpertsThatHaveRowsInIt) {
  TestProgram program;
  std::vector<int32_t> numbers;
  const std::vector<int64_t> counts = {100, 0, 28, 130, 1};  // and some without an expert
  for (size_t expert = 0; expert < counts.size(); ++expert) {
    numbers.insert(numbers.end(), static_cast<size_t>(counts[expert]),
                   static_cast<int32_t>(expert));
  }
  numbers.insert(numbers.end(), 41, 9);
  std::mt19937 generator(1);
  std::shuffle(numbers.begin(), numbers.end(), generator);
  const auto rows = static_cast<int64_t>(numbers.size());
  const ir::Value ids = program.argument(numbers, DType::kS32, {rows});
  const TpuSortedRows sorted = sorted_for_tpu(ids, 5);
  const auto results = program.run(
      {sorted.experts, sorted.tiles, sorted.bounds, sorted.visits, sorted.rows.sources});
  const auto ints = [&](size_t i) { return results[i].to_vector<int32_t>(); };
  EXPECT_EQ(ints(3), std::vector<int32_t>({5}));
  EXPECT_EQ(ints(2), std::vector<int32_t>({0, 100, 100, 128, 258, 259}));
  const std::vector<int32_t> experts = ints(0), tiles = ints(1);
  EXPECT_EQ(experts.size(), 7) << "three tiles and five experts";
  EXPECT_EQ(std::vector<int32_t>(experts.begin(), experts.begin() + 5),
            std::vector<int32_t>({0, 2, 3, 3, 4}));
  EXPECT_EQ(std::vector<int32_t>(tiles.begin(), tiles.begin() + 5),
            std::vector<int32_t>({0, 0, 1, 2, 2}));
  const std::vector<int32_t> order = ints(4);
  for (int32_t place = 0; place < 259; ++place) {
    const int32_t own = numbers[static_cast<size_t>(order[static_cast<size_t>(place)])];
    const auto& bounds = ints(2);
    ASSERT_TRUE(bounds[static_cast<size_t>(own)] <= place &&
                place < bounds[static_cast<size_t>(own) + 1])
        << place;
  }
}

TEST_F(TpuKernelsTest, ExpertsWeightsThatTheKernelLacksAreNamed) {
  install(kWrites);
  const Target target = tpu_target(kernels_);
  ir::Module module;
  ir::Function& f = module.add_function();
  const ir::Value ids = f.add_argument(Shape(DType::kS32, {8}));
  ExpertProduct blocks = expert_product(f, {2, 256, 256}, DType::kF8E4M3FN);
  blocks.weight.scales = f.add_argument(Shape(DType::kF32, {2, 2, 4}));
  const ExpertProduct plain = expert_product(f, {2, 256, 256});
  const ExpertProduct groups = product_of_groups(f, 2, 256, {2, 128}, DType::kF16);
  ExpertRows(target, ids, DType::kBF16, {plain, blocks});
  ExpertRows(target, ids, DType::kF32, {plain});
  ExpertRows(target, ids, DType::kBF16, {plain, groups});
  ASSERT_EQ(kernels_->choices().size(), 3) << "one without a kernel leaves none to the others";
  EXPECT_NE(kernels_->choices()[0].reason.find("blocks of 128 x 64"), std::string::npos);
  EXPECT_NE(kernels_->choices()[1].reason.find("rows of f32"), std::string::npos);
  EXPECT_NE(kernels_->choices()[2].reason.find("scales of f16"), std::string::npos);
}

// 2 of 8 experts have rows at most; the scales of all of them come together.
TEST_F(TpuKernelsTest, ExpertsWithoutRowsAreNotRead) {
  install(kKeepsKeys);
  const Target target = tpu_target(kernels_);
  ir::Module module;
  ir::Function& f = module.add_function();
  const ir::Value ids = f.add_argument(Shape(DType::kS32, {2}));
  const ExpertProduct product = product_of_groups(f, 8, 32, {3, 32}, DType::kBF16);
  const ExpertRows rows(target, ids, DType::kBF16, {product});
  rows.linear(f.add_argument(Shape(DType::kBF16, {2, 96})), product);
  const Json key = Json::parse(read_file(cache_ / "keys"));
  EXPECT_EQ(key.at("factors_first"), true);
  EXPECT_EQ(key.at("bytes"), 2 * 2 * (96 + 32) + 2 * (96 * 32 / 2) + 8 * 3 * 32 * 2);
}

TEST_F(TpuKernelsTest, AfterTheCompilersRefusalThereIsNone) {
  install(kWrites);
  program(kernels_, 128);
  EXPECT_FALSE(kernels_->take_back("a divisor is zero"));
  EXPECT_TRUE(
      kernels_->take_back("Ran out of memory in memory space vmem while allocating for %x = (..). "
                          "Scoped allocation with size 17.21M and limit 16.00M exceeded scoped "
                          "vmem limit by 1.21M. It should not be possible"));
  EXPECT_EQ(count(program(kernels_, 128), "\"stablehlo.scatter\"("), 1);
  ASSERT_EQ(kernels_->choices().size(), 1);
  EXPECT_EQ(kernels_->choices()[0].reason,
            "the compiler refused the kernel: Scoped allocation with size 17.21M and limit 16.00M "
            "exceeded scoped vmem limit by 1.21M");
  EXPECT_FALSE(kernels_->take_back("too much scoped vmem")) << "there is no kernel any more";
}

TEST_F(TpuKernelsTest, WhatTheCompilersRefusalDoesNotNameStays) {
  install(
      "echo \"// kernel_name = \\\"$2\\\"\" | grep -o 'kernel.*\"kernel\":\"[a-z_]*' | sed "
      "'s/{.*:\"//; s/$/\"/' > \"$4\"\n");
  const Target target = tpu_target(kernels_);
  const auto build = [&] {
    ir::Module module;
    ir::Function& f = module.add_function();
    const ir::Value ids = f.add_argument(Shape(DType::kS32, {8}));
    const ExpertProduct product = expert_product(f, {2, 256, 256});
    ExpertRows(target, ids, DType::kBF16, {product})
        .linear(f.add_argument(Shape(DType::kBF16, {8, 256})), product);
    program(kernels_, 128);
    return kernels_->choices();
  };
  build();
  int attempts = 0;
  const auto choices = without_refused(kernels_.get(), [&] {
    if (++attempts == 1) fail(Code::kUnavailable, "no vmem for %ragged_paged_attention.3");
    return build();
  });
  ASSERT_EQ(choices.size(), 2);
  EXPECT_EQ(choices[0].op, "expert_linear");
  EXPECT_EQ(choices[0].reason, "");
  EXPECT_NE(choices[1].reason.find("no vmem"), std::string::npos);
}

TEST_F(TpuKernelsTest, SamplingFiltersWholeBlocksOfRowsAndSortsNothing) {
  const auto build = [&](int64_t rows) {
    ir::Module module;
    ir::Function& f = module.add_function();
    const auto argument = [&f](DType dtype, Dims dims) {
      return f.add_argument(Shape(dtype, std::move(dims)));
    };
    const Dims row = {rows};
    SamplingInputs in;
    in.logits = argument(DType::kF32, {rows, 1000});
    in.temperature = argument(DType::kF32, row);
    in.top_p = argument(DType::kF32, row);
    in.min_p = argument(DType::kF32, row);
    in.top_k = argument(DType::kS32, row);
    in.seeds = argument(DType::kU32, {rows, 2});
    in.position = argument(DType::kU32, row);
    f.set_results({sample(tpu_target(kernels_), in).tokens});
    module.verify();
    return module.to_string();
  };
  const std::string reference = build(3);
  EXPECT_EQ(count(reference, "stablehlo.sort"), 0);
  EXPECT_EQ(count(reference, "stablehlo.while"), 3);  // the ends of top-k, of top-p and of equals
  EXPECT_FALSE(kernels_->used());

  install(kKeepsKeys);
  kernels_ = std::make_shared<TpuKernels>("v5e");
  for (const int64_t rows : {3, 8, 9}) EXPECT_EQ(count(build(rows), "stablehlo.while"), 0);
  EXPECT_TRUE(kernels_->used());
  std::istringstream keys(read_file(cache_ / "keys"));
  std::string line;
  int asked = 0;
  for (; std::getline(keys, line); ++asked) {
    const Json key = Json::parse(line);
    EXPECT_EQ(key.at("kernel"), "token_filter");
    EXPECT_EQ(key.at("vocab"), 1000);
    EXPECT_EQ(key.at("rows"), asked == 0 ? 8 : 16);
  }
  EXPECT_EQ(asked, 2) << "3 rows take the kernel of 8";
}

}  // namespace
}  // namespace ttpu::kernels
