// Sentence embeddings: texts in, vectors out, as sentence-transformers gives them.
#pragma once

#include <filesystem>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "ttpu/engine/engine_program.h"
#include "ttpu/engine/executable_cache.h"
#include "ttpu/engine/text_processor.h"
#include "ttpu/io/checkpoint.h"
#include "ttpu/nn/encoder.h"

namespace ttpu::engine {

enum class Pooling { kMean, kCls };

struct EmbedderOptions {
  std::string device = "cpu";  // a plugin's name or path
  DType dtype = DType::kF32;   // of activations: kBF16 or kF32
  bool custom_calls = true;    // false: pure StableHLO, no kernels of ours
};

// From one thread at a time.
class Embedder {
 public:
  // `path` is a folder in Hugging Face layout of an encoder (models::is_encoder). Pooling,
  // normalization and the longest text come from the files of sentence-transformers beside it
  // (modules.json, 1_Pooling/config.json, sentence_bert_config.json); without them the mean of all
  // tokens, not normalized.
  Embedder(const std::filesystem::path& path, const EmbedderOptions& options);
  Embedder(const Embedder&) = delete;
  Embedder& operator=(const Embedder&) = delete;

  int64_t dimensions() const { return spec_.hidden; }
  int64_t max_tokens() const { return max_tokens_; }
  const text::Tokenizer& tokenizer() const { return text_.tokenizer(); }
  // The tokens of a text, cut to max_tokens() as sentence-transformers does.
  std::vector<int32_t> encode(const std::string& text) const;

  // One vector [dimensions] a text. Throws kInvalidArgument for tokens outside the vocabulary,
  // kOutOfRange for more than max_tokens().
  std::vector<std::vector<float>> embed(std::span<const std::vector<int32_t>> texts);

 private:
  struct Step {
    int64_t tokens = 0;
    int64_t sequences = 0;
    int64_t pages_per_sequence = 0;
    pjrt::LoadedExecutable executable;
    pjrt::Buffer cache;
  };
  std::string build(Step& step, const nn::FormatOf& format_of, const kernels::Target& target,
                    std::vector<nn::WeightDecl>& weights, Shape& cache) const;
  // Texts [begin, end) in one step.
  void run(std::span<const std::vector<int32_t>* const> texts, std::span<std::vector<float>> out);

  io::ModelFiles files_;
  TextProcessor text_;
  nn::EncoderSpec spec_;
  EmbedderOptions options_;
  Pooling pooling_ = Pooling::kMean;
  bool normalize_ = false;
  int64_t max_tokens_ = 0;
  std::shared_ptr<const io::Checkpoint> checkpoint_;
  pjrt::Client client_;
  std::vector<Step> steps_;  // small ones first
  std::vector<pjrt::Buffer> weights_;
};

}  // namespace ttpu::engine
