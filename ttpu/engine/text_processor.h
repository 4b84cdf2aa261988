// What a model's files say of text: the tokenizer, the chat template, and the tokens that end an
// answer.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ttpu/io/config.h"
#include "ttpu/text/chat_template.h"
#include "ttpu/text/tokenizer.h"

namespace ttpu::engine {

// A model without a tokenizer works on tokens alone: what needs text throws kNotFound.
class TextProcessor {
 public:
  explicit TextProcessor(const io::ModelFiles& files);

  std::vector<int32_t> encode(const std::string& text) const { return tokenizer().encode(text); }
  // The chat template over messages (role, content), with the cue for an answer unless `options`
  // says otherwise. Throws kFailedPrecondition when the model has none.
  std::vector<int32_t> encode_chat(const Json& messages) const;
  std::vector<int32_t> encode_chat(const Json& messages, text::RenderOptions options) const;

  bool has_chat_template() const { return template_.has_value(); }
  // Empty when there is none.
  std::string_view chat_template_source() const {
    return template_ ? std::string_view(template_->source()) : std::string_view();
  }
  bool has_tokenizer() const { return tokenizer_.has_value(); }
  const text::Tokenizer& tokenizer() const;
  // The model's own end tokens, as generation_config.json or config.json has them.
  const std::vector<int32_t>& end_tokens() const { return end_tokens_; }

 private:
  std::optional<text::Tokenizer> tokenizer_;
  std::optional<text::ChatTemplate> template_;
  Json variables_;  // bos_token, eos_token, ...
  std::vector<int32_t> end_tokens_;
};

}  // namespace ttpu::engine
