#include "ttpu/engine/text_processor.h"

#include "ttpu/base/error.h"

namespace ttpu::engine {
namespace {

void add_ids(const Json& config, std::vector<int32_t>* ids) {
  const auto found = config.find("eos_token_id");
  if (found == config.end()) return;
  for (const Json& id : found->is_array() ? *found : Json::array({*found})) {
    if (id.is_number_integer()) ids->push_back(id.get<int32_t>());
  }
}

// What templates know as bos_token and eos_token: a string, or an object with `content`.
Json token_variables(const Json& tokenizer_config) {
  Json variables = Json::object();
  for (const char* name : {"bos_token", "eos_token", "unk_token", "pad_token"}) {
    const auto found = tokenizer_config.find(name);
    if (found == tokenizer_config.end()) continue;
    if (found->is_string()) variables[name] = *found;
    if (found->is_object() && found->contains("content")) variables[name] = (*found)["content"];
  }
  return variables;
}

}  // namespace

TextProcessor::TextProcessor(const io::ModelFiles& files)
    : variables_(token_variables(files.tokenizer_config)) {
  if (!files.tokenizer.json.empty()) tokenizer_ = text::Tokenizer::from_source(files.tokenizer);
  if (!files.chat_template.empty()) template_.emplace(files.chat_template);
  add_ids(files.generation_config, &end_tokens_);
  if (end_tokens_.empty()) add_ids(files.config, &end_tokens_);
}

const text::Tokenizer& TextProcessor::tokenizer() const {
  if (!tokenizer_) {
    fail(Code::kNotFound,
         "[text] the model has no tokenizer (tokenizer.json); add it, or give and take token ids");
  }
  return *tokenizer_;
}

std::vector<int32_t> TextProcessor::encode_chat(const Json& messages) const {
  text::RenderOptions options;
  options.add_generation_prompt = true;
  return encode_chat(messages, std::move(options));
}

std::vector<int32_t> TextProcessor::encode_chat(const Json& messages,
                                                text::RenderOptions options) const {
  if (!template_) {
    fail(Code::kFailedPrecondition,
         "[chat] the model has no chat template; use plain text (`ttpu generate`, "
         "/v1/completions), or a model that is tuned for chat");
  }
  Json variables = variables_;
  if (options.variables.is_object()) variables.update(options.variables);
  options.variables = std::move(variables);
  // The template writes the special tokens itself.
  return tokenizer().encode(template_->render(messages, options), false);
}

}  // namespace ttpu::engine
