// The tensors of a GGUF file under the names, shapes and values that transformers has them in.
#pragma once

#include <vector>

#include "ttpu/io/gguf.h"

namespace ttpu::io {

// Every tensor that the transformers model has, under its name there; stacked experts are split,
// and what llama.cpp's converter did to the values is in Tensor::transform. Tensors that only
// llama.cpp wants (rope_freqs) are left out. Throws kUnimplemented for an architecture that is not
// known here and kInvalidArgument for a tensor of no known name.
std::vector<Tensor> transformers_tensors(const Gguf& gguf);
// The same for tensors that come from several files; `head` holds the metadata.
std::vector<Tensor> transformers_tensors(const Gguf& head, const std::vector<Tensor>& tensors);

// transformers' model_type of a GGUF architecture ("gemma3" -> "gemma3_text", "llama" with experts
// -> "mixtral"). Throws kUnimplemented and lists the known ones.
std::string model_type_of(const Gguf& gguf);

}  // namespace ttpu::io
