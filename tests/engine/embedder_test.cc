// Sentence embeddings of a real model against sentence-transformers' vectors.
#include "ttpu/engine/embedder.h"

#include <cmath>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <future>

#include <gtest/gtest.h>
#include <unistd.h>

#include "ttpu/base/error.h"
#include "ttpu/base/file.h"
#include "ttpu/engine/embedding_queue.h"

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

// The tiny decoder with the files of sentence-transformers beside it.
class Decoder : public testing::TestWithParam<bool> {
 protected:
  Decoder() {
    std::filesystem::create_directories(folder_);
    const auto source = std::filesystem::path(TTPU_SOURCE_DIR) / "tests/fixtures/models/qwen3";
    for (const char* name : {"config.json", "model.safetensors"}) {
      std::filesystem::copy_file(source / name, folder_ / name);
    }
    const Json reference = read_json(std::filesystem::path(TTPU_SOURCE_DIR) /
                                     "tests/fixtures/reference/qwen3-embeddings.json");
    for (const Json& item : reference.at("items")) {
      texts_.push_back(item["token_ids"].get<std::vector<int32_t>>());
      last_.push_back(item["last"].get<std::vector<float>>());
      mean_.push_back(item["mean"].get<std::vector<float>>());
    }
    options_.custom_calls = GetParam();
  }
  ~Decoder() override { std::filesystem::remove_all(folder_); }
  void write(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name) << text;
  }
  void expect_vectors(const std::vector<std::vector<float>>& expected, bool unit) {
    Embedder embedder(folder_, options_);
    const auto vectors = embedder.embed(texts_);
    for (size_t i = 0; i < vectors.size(); ++i) {
      double length = 0;
      for (const float x : expected[i]) length += static_cast<double>(x) * static_cast<double>(x);
      const double scale = unit ? std::sqrt(length) : 1;
      for (size_t k = 0; k < vectors[i].size(); ++k) {
        EXPECT_NEAR(vectors[i][k], static_cast<double>(expected[i][k]) / scale, 2e-5)
            << "text " << i << ", number " << k;
      }
    }
  }

  const std::filesystem::path folder_ =
      std::filesystem::path(testing::TempDir()) / fmt::format("ttpu_decoder_{}", ::getpid());
  std::vector<std::vector<int32_t>> texts_;
  std::vector<std::vector<float>> last_, mean_;
  EmbedderOptions options_;
};

TEST_P(Decoder, GivesItsLastTokensStateAtLengthOne) {
  EXPECT_FALSE(is_embedding_model(folder_));
  expect_vectors(last_, true);
}

TEST_P(Decoder, PoolsAsSentenceTransformersFilesSay) {
  write("modules.json",
        R"([{"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "path": "pool", "type": "sentence_transformers.models.Pooling"}])");
  write("pool/config.json",
        R"({"pooling_mode_lasttoken": true, "pooling_mode_mean_tokens": false})");
  EXPECT_TRUE(is_embedding_model(folder_));
  expect_vectors(last_, false);
  write("pool/config.json", R"({"pooling_mode": "mean"})");
  expect_vectors(mean_, false);
}

TEST_P(Decoder, RefusesPoolingsAndModulesThatItDoesNotCompute) {
  write("1_Pooling/config.json", R"({"pooling_mode_max_tokens": true})");
  EXPECT_THROW(Embedder(folder_, options_), Error);
  write("1_Pooling/config.json",
        R"({"pooling_mode_cls_token": true, "pooling_mode_lasttoken": true})");
  EXPECT_THROW(Embedder(folder_, options_), Error);
  write("1_Pooling/config.json", "{}");
  write("modules.json", R"([{"type": "sentence_transformers.models.Dense", "path": "2_Dense"}])");
  EXPECT_THROW(Embedder(folder_, options_), Error);
}

INSTANTIATE_TEST_SUITE_P(Kernels, Decoder, testing::Bool(),
                         [](const auto& test) { return test.param ? "on" : "off"; });

TEST(EmbeddingQueue, RequestsOfManyShareSteps) {
  Embedder embedder(folder(), {});
  EmbeddingQueue queue(embedder);
  std::mutex mutex;
  std::condition_variable woken;
  bool open = false;
  std::promise<void> first_done;
  // While the first request's callback waits, the others gather.
  queue.submit({embedder.encode("x")}, [&](EmbeddingQueue::Vectors, const std::string*) {
    std::unique_lock lock(mutex);
    woken.wait(lock, [&] { return open; });
    first_done.set_value();
  });
  std::vector<std::vector<std::vector<int32_t>>> requests;
  for (const Json& item : items()) requests.push_back({embedder.encode(item["text"]), {101, 102}});
  std::vector<std::promise<EmbeddingQueue::Vectors>> answers(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    queue.submit(requests[i], [&answers, i](EmbeddingQueue::Vectors vectors, const std::string*) {
      answers[i].set_value(std::move(vectors));
    });
  }
  bool told = false;
  const int64_t left =
      queue.submit(requests[0], [&](EmbeddingQueue::Vectors, const std::string*) { told = true; });
  EXPECT_TRUE(queue.abort(left));
  EXPECT_FALSE(queue.abort(left));
  EXPECT_THROW(queue.submit({{-1}}, {}), Error);
  {
    const std::scoped_lock lock(mutex);
    open = true;
  }
  woken.notify_one();
  first_done.get_future().wait();
  for (size_t i = 0; i < requests.size(); ++i) {
    const auto vectors = answers[i].get_future().get();
    ASSERT_EQ(vectors.size(), 2u);
    EXPECT_GT(cosine(vectors[0], items()[i]["embedding"].get<std::vector<float>>()), 0.9999);
  }
  EXPECT_FALSE(told);
  EXPECT_EQ(queue.metrics().requests, 0);
  EXPECT_LT(queue.metrics().steps, static_cast<int64_t>(requests.size()));
  EXPECT_EQ(queue.metrics().texts, static_cast<int64_t>(2 * requests.size() + 1));
}

INSTANTIATE_TEST_SUITE_P(Kernels, EmbedderTest, testing::Bool(),
                         [](const auto& test) { return test.param ? "on" : "off"; });

}  // namespace
}  // namespace ttpu::engine
