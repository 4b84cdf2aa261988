// What an engine answers to a few requests of different kinds.
#pragma once

#include <functional>
#include <optional>
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

// The tokens that answer requests 0 to count - 1, all of them asked at once.
inline std::vector<std::vector<int32_t>> tokens_of(Engine& engine, size_t count,
                                                   const std::function<Request(size_t)>& request) {
  std::vector<std::vector<int32_t>> tokens(count);
  size_t next = 0;
  GenerationCallbacks callbacks;
  callbacks.next = [&]() -> std::optional<Request> {
    if (next == count) return std::nullopt;
    return request(next++);
  };
  callbacks.on_done = [&](size_t index, const Request&, GenerationResult result) {
    tokens.at(index) = result.token_ids;
  };
  generate_all(engine, callbacks);
  return tokens;
}

// Prompts of several lengths at once, so that steps mix prompts, pieces of them and decoding.
inline std::vector<std::vector<int32_t>> answers(Engine& engine) {
  return tokens_of(engine, 5, [](size_t index) {
    Request request;
    for (size_t i = 0; i < 3 + 4 * index; ++i) {
      request.prompt.push_back(static_cast<int32_t>((7 * i + 11 * index) % 60));
    }
    request.sampling.temperature = index % 2 == 0 ? 0 : 0.8;
    request.sampling.repetition_penalty = index == 3 ? 1.2 : 1;
    request.sampling.seed = index;
    request.sampling.max_tokens = 8;
    request.sampling.ignore_eos = true;
    return request;
  });
}

}  // namespace ttpu::engine
