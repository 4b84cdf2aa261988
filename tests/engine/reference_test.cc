// Real weights against transformers: the greedy continuations and the top logits of
// tests/fixtures/reference, from the GGUF files that tools/setup.sh fetches.
#include <algorithm>
#include <filesystem>

#include <gtest/gtest.h>

#include "tests/engine/support/stepper.h"
#include "ttpu/base/file.h"
#include "ttpu/engine/generator.h"

namespace ttpu::engine {
namespace {

struct Case {
  std::string name;  // of the reference
  std::string file;  // in the cache
  bool kernels;
};

Json reference_items(const std::string& name) {
  return read_json(std::filesystem::path(TTPU_SOURCE_DIR) / "tests/fixtures/reference" /
                   (name + ".json"))["items"];
}

Request request_for(const Generator& generator, const Json& item) {
  Request request;
  const std::string prompt = item["prompt"];
  if (item["kind"] == "chat") {
    request.prompt = generator.encode_chat(Json::array({{{"role", "user"}, {"content", prompt}}}));
  } else {
    request.prompt = generator.encode(prompt);
  }
  request.sampling.max_tokens = static_cast<int64_t>(item["output_ids"].size());
  return request;
}

class ReferenceTest : public testing::TestWithParam<Case> {
 protected:
  static std::filesystem::path weights() {
    const std::filesystem::path path = cache_dir() / "models" / GetParam().file;
    require(std::filesystem::exists(path), "'{}' is missing; `make test-setup` fetches it",
            path.string());
    return path;
  }

  // The reference's weights are those of the file, rounded to bf16.
  static EngineOptions options(DType dtype) {
    EngineOptions options;
    options.dtype = dtype;
    options.expand_weights = true;
    options.custom_calls = GetParam().kernels;
    options.max_model_len = 128;
    options.max_num_batched_tokens = 64;
    return options;
  }

  static Stepper stepper() {
    Stepper::Options options;
    options.expand_weights = true;
    options.kernels = GetParam().kernels;
    return Stepper(io::load_model_files(weights()).config, weights(), options);
  }
};

TEST_P(ReferenceTest, Float32GivesAllTokensAndTheTopLogits) {
  Generator generator(weights(), options(DType::kF32));
  Stepper exact = stepper();
  Json items = reference_items(GetParam().name);
  if (!GetParam().kernels) items.erase(items.begin() + 1, items.end());  // plain XLA is slow
  for (const Json& item : items) {
    SCOPED_TRACE(item["prompt"].get<std::string>());
    const Request request = request_for(generator, item);
    ASSERT_EQ(request.prompt, item["prompt_ids"].get<std::vector<int32_t>>());
    const auto expected = item["output_ids"].get<std::vector<int32_t>>();
    EXPECT_EQ(generator.generate(request).token_ids, expected);

    exact.reset();
    std::span<const float> logits = exact.append(request.prompt);
    for (size_t step = 0; step < item["top5"].size(); ++step) {
      const Json& top = item["top5"][step];
      for (size_t i = 0; i < top["ids"].size(); ++i) {
        EXPECT_NEAR(logits[top["ids"][i].get<size_t>()], top["logits"][i].get<float>(), 1e-3)
            << "step " << step << ", rank " << i;
      }
      logits = exact.append(std::span(&expected[step], 1));
    }
  }
}

// In bf16 the order of sums decides between near ties, so that no two programs agree to the end:
// the references' own bf16 run leaves float32 after `bf16_same_prefix` tokens. Ours must agree for
// as many tokens in all, and where it leaves, the two choices must be close in float32.
TEST_P(ReferenceTest, BFloat16AgreesAsLongAsTransformersInBFloat16) {
  if (!GetParam().kernels) GTEST_SKIP() << "plain XLA decodes five tokens a second in bf16";
  const Json items = reference_items(GetParam().name);
  Stepper exact = stepper();
  Generator rounded(weights(), options(DType::kBF16));
  int64_t ours = 0;
  int64_t theirs = 0;
  for (const Json& item : items) {
    SCOPED_TRACE(item["prompt"].get<std::string>());
    const Request request = request_for(rounded, item);
    const std::vector<int32_t> actual = rounded.generate(request).token_ids;
    const auto expected = item["output_ids"].get<std::vector<int32_t>>();
    const auto [left, right] =
        std::mismatch(expected.begin(), expected.end(), actual.begin(), actual.end());
    ours += left - expected.begin();
    theirs += item["bf16_same_prefix"].get<int64_t>();
    if (left == expected.end()) continue;
    std::vector<int32_t> tokens = request.prompt;
    tokens.insert(tokens.end(), expected.begin(), left);
    exact.reset();
    const std::span<const float> logits = exact.append(tokens);
    EXPECT_LT(logits[static_cast<size_t>(*left)] - logits[static_cast<size_t>(*right)], 0.5)
        << "at token " << left - expected.begin();
  }
  EXPECT_GE(ours, theirs);
}

// A cache of 8 bits moves the logits of float32 a little: by how much, over the prompts and the
// continuations of the references. Greedy decoding leaves the reference only at a near tie.
class CacheTypeTest : public ReferenceTest {
 protected:
  static void expect_close(DType cache_dtype, float tolerance, float near_tie) {
    Stepper exact = stepper();
    Stepper::Options options;
    options.expand_weights = true;
    options.cache_dtype = cache_dtype;
    Stepper coarse(io::load_model_files(weights()).config, weights(), options);
    EngineOptions engine = ReferenceTest::options(DType::kF32);
    engine.cache_dtype = cache_dtype;
    Generator generator(weights(), engine);
    float worst = 0;
    Json items = reference_items(GetParam().name);
    items.erase(items.begin() + 3, items.end());
    for (const Json& item : items) {
      SCOPED_TRACE(item["prompt"].get<std::string>());
      const Request request = request_for(generator, item);
      const auto expected = item["output_ids"].get<std::vector<int32_t>>();
      const std::vector<int32_t> actual = generator.generate(request).token_ids;
      exact.reset();
      coarse.reset();
      std::span<const float> a = exact.append(request.prompt);
      std::span<const float> b = coarse.append(request.prompt);
      for (size_t step = 0; step < expected.size(); ++step) {
        for (size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::abs(a[i] - b[i]));
        if (actual[step] != expected[step]) {
          EXPECT_LT(a[static_cast<size_t>(expected[step])] - a[static_cast<size_t>(actual[step])],
                    near_tie)
              << "at token " << step;
          break;
        }
        a = exact.append(std::span(&expected[step], 1));
        b = coarse.append(std::span(&expected[step], 1));
      }
    }
    EXPECT_LT(worst, tolerance);
    EXPECT_GT(worst, 0) << "the cache is that of float32";
  }
};

TEST_P(CacheTypeTest, NoLogitWithAnInt8CacheIsFartherThanOneAndAHalfFromFloat32) {
  expect_close(DType::kS8, 1.5F, 0.5F);
}

TEST_P(CacheTypeTest, NoLogitWithAnFp8CacheIsFartherThanSixFromFloat32) {
  expect_close(DType::kF8E4M3FN, 6.0F, 4.0F);
}

INSTANTIATE_TEST_SUITE_P(RealWeights, CacheTypeTest,
                         testing::Values(Case{"smollm2-135m-instruct",
                                              "smollm2-135m-instruct-q4_1.gguf", true}));

INSTANTIATE_TEST_SUITE_P(
    RealWeights, ReferenceTest,
    testing::Values(Case{"smollm2-135m-instruct", "smollm2-135m-instruct-q4_1.gguf", true},
                    Case{"smollm2-135m-instruct", "smollm2-135m-instruct-q4_1.gguf", false},
                    Case{"gemma3-270m", "gemma3-270m-q4_k_m.gguf", true},
                    Case{"gemma3-270m", "gemma3-270m-q4_k_m.gguf", false}),
    [](const auto& test) {
      std::string name = test.param.name.substr(0, test.param.name.find('-'));
      return name + (test.param.kernels ? "_kernels" : "_reference");
    });

}  // namespace
}  // namespace ttpu::engine
