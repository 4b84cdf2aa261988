// What a GGUF file's metadata says, as transformers' config.json and generation_config.json.
#pragma once

#include <string>

#include "ttpu/base/json.h"
#include "ttpu/io/gguf.h"

namespace ttpu::io {

// A config as transformers 5 writes it ("rope_parameters", "layer_types"), with "model_type".
// Throws kUnimplemented for an unknown architecture, kInvalidArgument for missing metadata.
Json gguf_config(const Gguf& gguf);

// "eos_token_id" (a list when several tokens end an answer), "bos_token_id", "pad_token_id".
Json gguf_generation_config(const Gguf& gguf);

// tokenizer.chat_template, or empty.
std::string gguf_chat_template(const Gguf& gguf);

}  // namespace ttpu::io
