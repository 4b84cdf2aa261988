// POST /v1/embeddings
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ttpu/engine/embedding_queue.h"
#include "ttpu/server/generation_request.h"
#include "ttpu/server/http_server.h"
#include "ttpu/server/metrics.h"

namespace ttpu::server {

struct EmbeddingRequest {
  std::string model;
  std::vector<std::vector<int32_t>> texts;
  std::optional<int64_t> dimensions;  // the first of a vector's numbers
  bool base64 = false;                // little-endian float32, instead of numbers
};

// Throws ApiError.
EmbeddingRequest read_embedding(const Json& body, const ModelFacts& facts,
                                const engine::Embedder& embedder);

// The answer's object as text.
std::string embedding_answer(const EmbeddingRequest& request,
                             std::vector<std::vector<float>> vectors, bool normalized);

std::string base64(std::string_view bytes);

// On the server's thread; `post` runs a task there. `on_failure` is told there when the model can
// embed no more. Throws what EmbeddingQueue::submit throws.
void start_embedding(engine::EmbeddingQueue& queue, Metrics& metrics, EmbeddingRequest request,
                     bool normalized, const std::shared_ptr<Exchange>& exchange,
                     const std::function<void(std::function<void()>)>& post,
                     const std::function<void()>& on_failure);

}  // namespace ttpu::server
