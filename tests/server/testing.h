// A model's texts without a model: words for tokens, and a plain chat template.
#pragma once

#include "ttpu/base/json.h"
#include "ttpu/engine/text_processor.h"
#include "ttpu/server/generation_request.h"

namespace ttpu::server {

inline engine::TextProcessor word_texts() {
  io::ModelFiles files;
  files.config = files.generation_config = files.tokenizer_config = Json::object();
  files.tokenizer.json = R"({"version": "1.0", "added_tokens": [],
    "pre_tokenizer": {"type": "Whitespace"},
    "model": {"type": "WordLevel", "unk_token": "?",
              "vocab": {"?": 0, "user": 1, "system": 2, "assistant": 3, "Hi": 4, "there": 5}}})";
  files.chat_template =
      "{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}"
      "{% if tools %}there {% endif %}{% if add_generation_prompt %}assistant{% endif %}";
  return engine::TextProcessor(files);
}

// `texts` must outlive the result.
inline ModelFacts word_facts(const engine::TextProcessor& texts) {
  ModelFacts facts;
  facts.names = {"m", "other"};
  facts.text = &texts;
  facts.defaults.temperature = 1;
  facts.max_model_len = 8;
  return facts;
}

}  // namespace ttpu::server
