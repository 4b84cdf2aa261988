// The tokenizer in a GGUF file's metadata, as files of Hugging Face's `tokenizers`.
#pragma once

#include "ttpu/base/json.h"
#include "ttpu/io/gguf.h"
#include "ttpu/io/tokenizer_source.h"

namespace ttpu::io {

// Byte-level BPE (tokenizer.ggml.model "gpt2", split as tokenizer.ggml.pre says) or SentencePiece
// BPE ("llama"; without a list of merges, they follow from the scores, as in transformers). Throws
// kUnimplemented for other models and pre-tokenizers, kInvalidArgument for damaged lists. What the
// lists hold is checked when the tokenizer is made of them.
TokenizerSource gguf_tokenizer(const Gguf& gguf);

// A tokenizer_config.json: bos_token, eos_token, unk_token, pad_token, add_bos_token,
// add_eos_token and chat_template.
Json gguf_tokenizer_config(const Gguf& gguf);

}  // namespace ttpu::io
