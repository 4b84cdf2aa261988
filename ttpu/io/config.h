// The small files beside a model's weights.
#pragma once

#include <filesystem>
#include <string>

#include "ttpu/base/json.h"
#include "ttpu/io/tokenizer_source.h"

namespace ttpu::io {

struct ModelFiles {
  std::filesystem::path path;  // the folder or the .gguf file: what Checkpoint::open takes
  Json config;                 // config.json; always an object
  // generation_config.json, tokenizer_config.json and special_tokens_map.json; {} when there is
  // none.
  Json generation_config;
  Json tokenizer_config;
  Json special_tokens_map;
  TokenizerSource tokenizer;  // empty when there is none
  // chat_template.jinja, chat_template.json or the tokenizer config's own; empty when there is
  // none. Of several named ones, "default".
  std::string chat_template;
};

// Reads them from a folder in Hugging Face layout, or makes them from the metadata of a .gguf file.
// Only config.json must exist (kNotFound). Errors name the file and the field. Whether the numbers
// make sense is for the models to judge.
ModelFiles load_model_files(const std::filesystem::path& path);

}  // namespace ttpu::io
