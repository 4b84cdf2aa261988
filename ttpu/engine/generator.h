// Text generation one answer at a time: an engine with one sequence, driven by the caller.
#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "ttpu/engine/engine.h"

namespace ttpu::engine {

struct GenerationResult {
  std::string text;
  std::vector<int32_t> token_ids;
  FinishReason finish_reason = FinishReason::kStop;
  std::vector<TokenLogprobs> logprobs;  // one a token, when they were asked for
  double first_token_seconds = 0;
  double decode_seconds = 0;  // from the first token to the last
};

class Generator {
 public:
  // `path` is a folder in Hugging Face layout or a .gguf file.
  Generator(const std::filesystem::path& path, const EngineOptions& options)
      : engine_(path, options) {}

  std::vector<int32_t> encode(const std::string& text) const { return engine_.text().encode(text); }
  std::vector<int32_t> encode_chat(const Json& messages) const {
    return engine_.text().encode_chat(messages);
  }

  // `on_text` gets each new piece. `cancelled`, when set from elsewhere, ends the answer. What the
  // cache still holds of the prompt is not computed again.
  GenerationResult generate(const Request& request,
                            const std::function<void(const std::string&)>& on_text = {},
                            const std::atomic<bool>* cancelled = nullptr);

  Engine& engine() { return engine_; }

 private:
  Engine engine_;
};

}  // namespace ttpu::engine
