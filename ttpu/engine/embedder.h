// Embeddings: texts in, vectors out, as sentence-transformers gives them. Encoders (BERT and what
// is built like it) and decoders.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "ttpu/engine/executable_cache.h"
#include "ttpu/engine/pooling.h"
#include "ttpu/engine/runner.h"
#include "ttpu/engine/text_processor.h"
#include "ttpu/io/checkpoint.h"
#include "ttpu/nn/encoder.h"

namespace ttpu::engine {

struct EmbedderOptions {
  std::string device = "cpu";            // a plugin's name or path
  DType dtype = DType::kF32;             // of activations: kBF16 or kF32
  bool expand_weights = false;           // encoded weights become dense bf16 when they are loaded
  std::string quantization = {};         // as EngineOptions has it
  bool custom_calls = true;              // false: pure StableHLO, no kernels of ours
  int64_t max_model_len = 0;             // tokens of a text; 0: what the model allows, to 4096
  int64_t max_num_batched_tokens = 512;  // of one step, at least; a step holds the longest text
  bool needs_tokenizer = false;          // as EngineOptions has it
};

// Whether `ttpu serve` should embed with it, when nobody says: an encoder, or a model of
// sentence-transformers.
bool is_embedding_model(const std::filesystem::path& path);

// From one thread at a time, but for what is const.
class Embedder {
 public:
  // `path` is a folder in Hugging Face layout, or of a decoder also a .gguf file. Pooling,
  // normalization and the longest text come from the files of sentence-transformers beside it;
  // without them an encoder gives the mean of all tokens, and a decoder its last token's state
  // scaled to length 1, as vLLM does.
  Embedder(const std::filesystem::path& path, const EmbedderOptions& options,
           const Progress& progress = {});
  Embedder(const Embedder&) = delete;
  Embedder& operator=(const Embedder&) = delete;

  int64_t dimensions() const { return hidden_; }
  int64_t max_tokens() const { return max_tokens_; }  // of a text
  int64_t vocab() const { return vocab_; }
  const TextProcessor& text() const { return text_; }
  const text::Tokenizer& tokenizer() const { return text_.tokenizer(); }
  const LoadStats& stats() const { return stats_; }
  bool normalized() const { return pooling_.normalize; }
  // Throws kInvalidArgument unless the first `dimensions` numbers of a vector are a vector, too
  // (`matryoshka_dimensions` or `is_matryoshka` in config.json).
  void check_dimensions(int64_t dimensions) const;

  // The tokens of a text, cut to `most` (0: max_tokens()) as sentence-transformers does.
  std::vector<int32_t> encode(const std::string& text, int64_t most = 0) const;
  // Cuts tokens in the same way: what the tokenizer adds at the end stays.
  void truncate(std::vector<int32_t>& tokens, int64_t most) const;
  // Throws kInvalidArgument for tokens outside the vocabulary, kOutOfRange for more than
  // max_tokens().
  void check(std::span<const int32_t> tokens) const;

  // One vector [dimensions] a text. Throws as check().
  std::vector<std::vector<float>> embed(std::span<const std::vector<int32_t>> texts);

  // Texts that together have at most so many tokens, and are at most so many, take one step.
  int64_t step_tokens() const { return steps_.back().tokens; }
  int64_t step_texts() const { return steps_.back().sequences; }

 private:
  struct Step {
    int64_t tokens = 0;
    int64_t sequences = 0;
    int64_t pages_per_sequence = 0;
    pjrt::LoadedExecutable executable;
  };
  void plan_steps(int64_t largest);
  std::string build(const Step& step, const nn::FormatOf& format_of, const kernels::Target& target,
                    std::vector<nn::WeightDecl>& weights) const;
  void run(std::span<const std::vector<int32_t>* const> texts, std::span<std::vector<float>> out);

  io::ModelFiles files_;
  TextProcessor text_;
  std::variant<nn::EncoderSpec, nn::DecoderSpec> spec_;
  EmbedderOptions options_;
  PoolingSpec pooling_;
  int64_t hidden_ = 0;
  int64_t vocab_ = 0;
  int64_t max_tokens_ = 0;
  size_t end_tokens_ = 0;  // that the tokenizer adds to every text
  std::shared_ptr<const io::Checkpoint> checkpoint_;
  pjrt::Client client_;
  std::vector<Step> steps_;  // small ones first
  Shape cache_shape_;
  pjrt::Buffer cache_;  // scratch of all steps
  std::vector<pjrt::Buffer> weights_;
  LoadStats stats_;
};

}  // namespace ttpu::engine
