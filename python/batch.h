// Many requests at once, for ttpu/llm.py. Knows nothing of Python.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "ttpu/engine/beam_search.h"
#include "ttpu/engine/embedder.h"
#include "ttpu/engine/generator.h"

namespace ttpu::python {

struct BatchResult {
  std::vector<int32_t> prompt;
  engine::GenerationResult result;
};

class BatchEngine {
 public:
  BatchEngine(const std::string& name, const engine::EngineOptions& options);

  std::vector<int32_t> encode(const std::string& text) const { return engine_.text().encode(text); }
  std::vector<int32_t> encode_chat(const Json& messages) const {
    return engine_.text().encode_chat(messages);
  }
  // In the order of the requests. All are checked before the first runs; `cancelled` ends those
  // that run.
  std::vector<BatchResult> generate(std::vector<engine::Request> requests,
                                    const std::atomic<bool>& cancelled);
  std::vector<engine::BeamAnswer> beam_search(const std::vector<int32_t>& prompt,
                                              const engine::BeamSearchParams& params) {
    return engine::beam_search(engine_, prompt, params);
  }
  std::string decode(const std::vector<int32_t>& tokens) const {
    return engine_.text().tokenizer().decode(tokens);
  }

 private:
  engine::Engine engine_;
};

}  // namespace ttpu::python
