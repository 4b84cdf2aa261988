// How text is split before byte-level BPE, by llama.cpp's name for it (tokenizer.ggml.pre).
#pragma once

#include <string>
#include <string_view>

#include "ttpu/base/json.h"

namespace ttpu::io {

struct PreTokenizer {
  Json json;                   // "pre_tokenizer" of a tokenizer.json
  Json normalizer;             // "normalizer", or null
  bool ignore_merges = false;  // whole words are looked up first
};

// Throws kUnimplemented for a name that is not known; `what` names the file.
PreTokenizer pre_tokenizer_named(std::string_view name, const std::string& what);

// Whether llama.cpp puts the begin token in front when the file does not say.
bool adds_bos_by_default(std::string_view name);

}  // namespace ttpu::io
