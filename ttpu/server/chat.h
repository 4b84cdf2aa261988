// POST /v1/chat/completions
#pragma once

#include <memory>
#include <vector>

#include "ttpu/server/answer.h"

namespace ttpu::server {

// Throws ApiError.
std::unique_ptr<AnswerFormat> read_chat(const Json& body, const ModelFacts& facts);

// The fields `messages`, `tools` and what else the template sees, as tokens. Throws ApiError.
std::vector<int32_t> read_conversation(Fields& fields, const ModelFacts& facts);

}  // namespace ttpu::server
