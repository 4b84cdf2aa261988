// The weights of a model, wherever they lie: a folder in Hugging Face layout or a GGUF file.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "ttpu/io/gguf.h"
#include "ttpu/io/tensor.h"

namespace ttpu::io {

// Files are mapped; a page is read when a tensor's bytes are first touched. Names, shapes and
// (through Tensor::transform) values are those of transformers, also for GGUF. Safe to read from
// several threads.
class Checkpoint {
 public:
  // `path` is a folder with model.safetensors or model.safetensors.index.json and its shards, a
  // .safetensors file, or a .gguf file (of a split one, any part). Throws kNotFound,
  // kInvalidArgument for a damaged file, kUnimplemented for pickles and unknown encodings, and for
  // what join_quantized and the folder's quantization_config refuse.
  static std::unique_ptr<Checkpoint> open(const std::filesystem::path& path);

  const std::vector<Tensor>& tensors() const { return tensors_; }
  // Null when there is none of that name.
  const Tensor* find(std::string_view name) const;
  // Throws kNotFound and names the nearest ones.
  const Tensor& at(std::string_view name) const;
  // After use: its pages stop counting as resident memory. They can be read again.
  static void release(const Tensor& tensor);
  // The metadata of a GGUF file; null for safetensors.
  const Gguf* gguf() const { return gguf_.get(); }
  int64_t total_bytes() const;

 private:
  void open_folder(const std::filesystem::path& folder);
  void open_safetensors(const std::filesystem::path& file);
  void open_gguf(const std::filesystem::path& file);
  void join_blocks_and_scales();
  void join_quantized_parts(const std::filesystem::path& config_file);
  void add(Tensor tensor);
  const MappedFile& map(const std::filesystem::path& file);

  std::vector<std::unique_ptr<MappedFile>> files_;
  std::unique_ptr<Gguf> gguf_;
  std::vector<Tensor> tensors_;
  std::unordered_map<std::string, size_t> index_;
};

// Throws kUnimplemented, with the reason, when the file's name is that of a pickle.
void refuse_pickle(const std::filesystem::path& file);

// Up to `limit` of `candidates`, the most similar (by edit distance) first; far ones are left out.
std::vector<std::string> nearest_names(std::string_view name,
                                       const std::vector<std::string>& candidates,
                                       size_t limit = 3);

// The parts of a split GGUF ("x-00001-of-00003.gguf"), in order; `file` alone when not split.
std::vector<std::filesystem::path> gguf_parts(const std::filesystem::path& file);

}  // namespace ttpu::io
