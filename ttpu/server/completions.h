// POST /v1/completions
#pragma once

#include <memory>

#include "ttpu/server/answer.h"

namespace ttpu::server {

// Throws ApiError.
std::unique_ptr<AnswerFormat> read_completion(const Json& body, const ModelFacts& facts);

}  // namespace ttpu::server
