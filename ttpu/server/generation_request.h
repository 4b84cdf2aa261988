// What /v1/completions and /v1/chat/completions ask in common.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ttpu/engine/request.h"
#include "ttpu/engine/text_processor.h"
#include "ttpu/server/fields.h"

namespace ttpu::server {

struct ToolFormat;

// What a request is read against.
struct ModelFacts {
  std::vector<std::string> names;  // served model names, the first one is the one that is said
  const engine::TextProcessor* text = nullptr;
  engine::SamplingParams defaults;  // of generation_config.json; temperature 1 when it has none
  int64_t max_model_len = 0;
  int64_t max_prompts = 1024;  // prompts times n of one request
  // Of a prompt's text: more cannot be so few tokens as fit, and is not even looked at.
  size_t max_prompt_bytes = SIZE_MAX;
  const ToolFormat* tool_format = nullptr;  // in which the model calls tools; null: not known
  bool reasoning = false;                   // the model thinks between <think> and </think>
};

struct GenerationRequest {
  std::string model;
  std::vector<std::vector<int32_t>> prompts;
  std::vector<std::string> prompt_texts;  // one a prompt, when it is to be echoed
  engine::SamplingParams sampling;
  int64_t n = 1;     // answers to each prompt
  int64_t best = 0;  // so many of them are said, those of the highest mean log probability; 0: all
  std::optional<uint64_t> seed;
  bool no_answer = false;  // max_tokens 0: the prompt alone is looked at
  bool stream = false;
  bool include_usage = false;
  bool continuous_usage = false;  // with every chunk
  bool return_token_ids = false;
  int64_t priority = 0;
  std::string cache_salt;
  std::shared_ptr<const text::Grammar> grammar;  // of sampling.structured_outputs, once compiled

  size_t choices() const { return prompts.size() * static_cast<size_t>(n); }
  // Choice i answers prompt i / n.
  engine::Request engine_request(size_t choice) const;
};

// From generation_config.json, for what a request does not say.
engine::SamplingParams default_sampling(const Json& generation_config);

// Reads `model`; throws ApiError 404 unless it is one of those served.
std::string read_model(Fields& fields, const ModelFacts& facts);
// All fields but the prompt, the model, and what counts tokens and log probabilities.
void read_common(Fields& fields, const ModelFacts& facts, GenerationRequest& request);
// What `prompt` and `input` may be: a string, strings, numbers of tokens, or lists of those; one
// call for each of them. Throws ApiError 400 for what is none of that, or has more than `most`.
void read_prompts(Fields& fields, const std::string& name, const ModelFacts& facts, int64_t most,
                  const std::function<void(const std::string&)>& on_text,
                  const std::function<void(std::vector<int32_t>)>& on_tokens);
// Throws ApiError 400 when a text of so many bytes is longer than the model's context.
void check_prompt_bytes(size_t bytes, const ModelFacts& facts, const std::string& field);
// Throws ApiError 400 when a prompt leaves no room for an answer; `field` is where it stands.
void check_prompt_tokens(const ModelFacts& facts, const GenerationRequest& request,
                         const std::string& field);
// What max_tokens, or its absence, comes to, once the prompts are known to leave room.
void set_max_tokens(std::optional<int64_t> max_tokens, int64_t fallback, const ModelFacts& facts,
                    GenerationRequest& request);

}  // namespace ttpu::server
