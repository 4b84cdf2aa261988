// What requests say of the form of their answers.
#pragma once

#include "ttpu/server/generation_request.h"

namespace ttpu::server {

// vLLM's `structured_outputs` and `guided_json`, `guided_regex`, `guided_choice`,
// `guided_grammar`.
void read_structured_outputs(Fields& fields, engine::SamplingParams& sampling);
// OpenAI's `response_format` of chat and `text.format` of responses, which is flatter; `name` is
// the field, `flat` which of the two it is.
void read_response_format(Fields& fields, std::string_view name, bool flat,
                          engine::SamplingParams& sampling);

}  // namespace ttpu::server
