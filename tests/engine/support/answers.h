// What an engine answers to a few requests of different kinds.
#pragma once

#include <vector>

#include "ttpu/engine/generator.h"

namespace ttpu::engine {

// Room for the requests of answers(), two at a time; float32, so that devices can be compared.
inline EngineOptions small_options(const ParallelOptions& parallel) {
  EngineOptions options;
  options.dtype = DType::kF32;
  options.max_model_len = 32;
  options.max_num_seqs = 2;
  options.max_num_batched_tokens = 16;
  options.block_size = 8;
  options.parallel = parallel;
  return options;
}

// Prompts of several lengths at once, so that steps mix prompts, pieces of them and decoding.
inline std::vector<std::vector<int32_t>> answers(Engine& engine) {
  constexpr size_t kRequests = 5;
  std::vector<std::vector<int32_t>> tokens(kRequests);
  size_t next = 0;
  GenerationCallbacks callbacks;
  callbacks.next = [&]() -> std::optional<Request> {
    if (next == kRequests) return std::nullopt;
    Request request;
    for (size_t i = 0; i < 3 + 4 * next; ++i) {
      request.prompt.push_back(static_cast<int32_t>((7 * i + 11 * next) % 60));
    }
    request.sampling.temperature = next % 2 == 0 ? 0 : 0.8;
    request.sampling.repetition_penalty = next == 3 ? 1.2 : 1;
    request.sampling.seed = next;
    request.sampling.max_tokens = 8;
    request.sampling.ignore_eos = true;
    ++next;
    return request;
  };
  callbacks.on_done = [&](size_t index, const Request&, GenerationResult result) {
    tokens.at(index) = result.token_ids;
  };
  generate_all(engine, callbacks);
  return tokens;
}

}  // namespace ttpu::engine
