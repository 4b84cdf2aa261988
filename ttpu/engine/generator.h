// Whole answers from an engine that the caller drives: one at a time, or many at once.
#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "ttpu/engine/engine.h"

namespace ttpu::engine {

struct GenerationResult {
  std::string text;
  std::vector<int32_t> token_ids;
  FinishReason finish_reason = FinishReason::kStop;
  std::string error;                    // with FinishReason::kError
  Code error_code = Code::kInternal;    // of RequestOutput
  std::vector<TokenLogprobs> logprobs;  // one a token, when they were asked for
  double first_token_seconds = 0;       // from the submission
  double decode_seconds = 0;            // from the first token to the last
};

struct GenerationCallbacks {
  // The next request, or nothing when there are no more.
  std::function<std::optional<Request>()> next;
  // Each new piece of text; may be empty.
  std::function<void(size_t index, const std::string& text)> on_text;
  // In the order in which they end. `index` counts the requests from 0.
  std::function<void(size_t index, const Request& request, GenerationResult result)> on_done;
};

// Keeps the engine busy until all requests have ended. `cancelled`, when set from elsewhere, ends
// the running ones (FinishReason::kAborted) and takes no more.
void generate_all(Engine& engine, const GenerationCallbacks& callbacks,
                  const std::atomic<bool>* cancelled = nullptr);

// One answer. Throws the request's error where FinishReason::kError ends it. `on_text` gets each
// new piece. What the cache still holds of the prompt is not computed again.
GenerationResult generate_one(Engine& engine, const Request& request,
                              const std::function<void(const std::string&)>& on_text = {},
                              const std::atomic<bool>* cancelled = nullptr);

// An engine of its own, for one answer at a time.
class Generator {
 public:
  // `path` is a folder in Hugging Face layout or a .gguf file.
  Generator(const std::filesystem::path& path, const EngineOptions& options)
      : engine_(path, options) {}

  std::vector<int32_t> encode(const std::string& text) const { return engine_.text().encode(text); }
  std::vector<int32_t> encode_chat(const Json& messages) const {
    return engine_.text().encode_chat(messages);
  }

  // generate_one
  GenerationResult generate(const Request& request,
                            const std::function<void(const std::string&)>& on_text = {},
                            const std::atomic<bool>* cancelled = nullptr) {
    return generate_one(engine_, request, on_text, cancelled);
  }

  Engine& engine() { return engine_; }

 private:
  Engine engine_;
};

}  // namespace ttpu::engine
