// Text generation with one sequence: prompt tokens in, text out as it comes.
#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ttpu/engine/model.h"
#include "ttpu/engine/sampler.h"
#include "ttpu/io/config.h"
#include "ttpu/text/chat_template.h"
#include "ttpu/text/tokenizer.h"

namespace ttpu::engine {

struct GenerationRequest {
  std::vector<int32_t> prompt;
  SamplingParams sampling;
  std::vector<std::string> stop;  // the text ends before the first of these
};

struct GenerationResult {
  std::string text;
  std::vector<int32_t> token_ids;
  std::string finish_reason;   // "stop", "length" or "cancelled"
  std::vector<Sampled> steps;  // with log probabilities when they were asked for
  double first_token_seconds = 0;
  double decode_seconds = 0;  // from the first token to the last
};

class Generator {
 public:
  // `path` is a folder in Hugging Face layout or a .gguf file.
  Generator(const std::filesystem::path& path, const ModelOptions& options);

  std::vector<int32_t> encode(const std::string& text) const;
  // The chat template over messages (role, content), with the cue for an answer. Throws
  // kFailedPrecondition when the model has none.
  std::vector<int32_t> encode_chat(const Json& messages) const;

  // `on_text` gets each new piece. `cancelled`, when set from elsewhere, ends the answer. A prompt
  // that begins with what the cache holds costs only its new tokens.
  GenerationResult generate(const GenerationRequest& request,
                            const std::function<void(const std::string&)>& on_text = {},
                            const std::atomic<bool>* cancelled = nullptr);

  Model& model() { return *model_; }
  const text::Tokenizer& tokenizer() const { return tokenizer_; }

 private:
  std::span<float> prefill(const std::vector<int32_t>& prompt);
  bool is_end(int32_t token) const;

  io::ModelFiles files_;
  text::Tokenizer tokenizer_;
  std::optional<text::ChatTemplate> template_;
  std::vector<int32_t> end_ids_;
  std::unique_ptr<Model> model_;
  std::vector<int32_t> cached_;  // the tokens that the cache holds
};

}  // namespace ttpu::engine
