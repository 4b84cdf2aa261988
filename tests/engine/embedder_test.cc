// Sentence embeddings of a real model against sentence-transformers' vectors.
#include "ttpu/engine/embedder.h"

#include <cmath>
#include <filesystem>

#include <gtest/gtest.h>

#include "ttpu/base/error.h"
#include "ttpu/base/file.h"

namespace ttpu::engine {
namespace {

std::filesystem::path folder() {
  const std::filesystem::path path = cache_dir() / "models/all-minilm-l6-v2";
  require(std::filesystem::exists(path), "'{}' is missing; `make test-setup` fetches it",
          path.string());
  return path;
}

Json items() {
  return read_json(std::filesystem::path(TTPU_SOURCE_DIR) /
                   "tests/fixtures/reference/all-minilm-l6-v2.json")["items"];
}

double cosine(const std::vector<float>& a, const std::vector<float>& b) {
  double product = 0;
  double of_a = 0;
  double of_b = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    product += static_cast<double>(a[i]) * static_cast<double>(b[i]);
    of_a += static_cast<double>(a[i]) * static_cast<double>(a[i]);
    of_b += static_cast<double>(b[i]) * static_cast<double>(b[i]);
  }
  return product / std::sqrt(of_a * of_b);
}

class EmbedderTest : public testing::TestWithParam<bool> {};

TEST_P(EmbedderTest, GivesTheVectorsOfSentenceTransformers) {
  EmbedderOptions options;
  options.custom_calls = GetParam();
  Embedder embedder(folder(), options);
  std::vector<std::vector<int32_t>> texts;
  for (const Json& item : items()) {
    texts.push_back(embedder.encode(item["text"]));
    EXPECT_EQ(texts.back(), item["token_ids"].get<std::vector<int32_t>>());
  }
  const std::vector<std::vector<float>> vectors = embedder.embed(texts);
  ASSERT_EQ(vectors.size(), items().size());
  for (size_t i = 0; i < vectors.size(); ++i) {
    ASSERT_EQ(vectors[i].size(), 384u);
    EXPECT_GT(cosine(vectors[i], items()[i]["embedding"].get<std::vector<float>>()), 0.9999)
        << "text " << i;
    EXPECT_GT(cosine(vectors[i], embedder.embed(std::span(&texts[i], 1))[0]), 0.99999)
        << "text " << i << " alone";
  }
}

TEST_P(EmbedderTest, RefusesWhatItCannotEmbed) {
  EmbedderOptions options;
  options.custom_calls = GetParam();
  Embedder embedder(folder(), options);
  EXPECT_EQ(embedder.max_tokens(), 256);
  const std::vector<std::vector<int32_t>> bad = {{}, {30522}, std::vector<int32_t>(257, 101)};
  for (const std::vector<int32_t>& tokens : bad) {
    EXPECT_THROW(embedder.embed(std::span(&tokens, 1)), Error);
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, EmbedderTest, testing::Bool(),
                         [](const auto& test) { return test.param ? "on" : "off"; });

}  // namespace
}  // namespace ttpu::engine
