// The tokenizer in a GGUF file's metadata, as files of Hugging Face's `tokenizers`.
#pragma once

#include <string>

#include "ttpu/base/json.h"
#include "ttpu/io/gguf.h"

namespace ttpu::io {

// The text of a tokenizer.json: byte-level BPE (tokenizer.ggml.model "gpt2", split as
// tokenizer.ggml.pre says) or SentencePiece BPE ("llama"; merges are recovered from the scores, as
// transformers does). Throws kUnimplemented for other models and pre-tokenizers, kInvalidArgument
// for damaged lists.
std::string gguf_tokenizer_json(const Gguf& gguf);

// A tokenizer_config.json: bos_token, eos_token, unk_token, pad_token, add_bos_token,
// add_eos_token and chat_template.
Json gguf_tokenizer_config(const Gguf& gguf);

}  // namespace ttpu::io
