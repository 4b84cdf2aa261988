// POST /v1/responses: text, thoughts and calls of tools. Nothing is stored: a conversation comes
// whole in `input`.
#pragma once

#include <memory>

#include "ttpu/server/answer.h"

namespace ttpu::server {

// Throws ApiError.
std::unique_ptr<AnswerFormat> read_response(const Json& body, const ModelFacts& facts);

}  // namespace ttpu::server
