// From a request that has been read to the answer's last byte.
#pragma once

#include <memory>

#include "ttpu/server/answer.h"
#include "ttpu/server/engine_loop.h"
#include "ttpu/server/http_server.h"
#include "ttpu/server/metrics.h"

namespace ttpu::server {

// Submits all choices of the request, and answers as they come. A client that leaves ends them.
// Throws what Engine::check throws, before anything is submitted.
void start_generation(EngineLoop& loop, Metrics& metrics, std::shared_ptr<AnswerFormat> format,
                      std::shared_ptr<Exchange> exchange);

}  // namespace ttpu::server
