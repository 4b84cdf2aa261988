// The safetensors format: 8 bytes of header length, a JSON header, the data.
// https://github.com/huggingface/safetensors#format
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "ttpu/io/tensor.h"

namespace ttpu::io {

struct Safetensors {
  std::vector<Tensor> tensors;  // in the order of their data
  std::map<std::string, std::string> metadata;
};

// Reads the header in `bytes`; the tensors point into them. `what` names the file in errors. Every
// rule of the format is checked: header length, JSON and UTF-8, unique names, known types, shapes
// that fit their bytes, data without gaps or overlaps that fills the file. Throws kInvalidArgument.
Safetensors parse_safetensors(std::span<const std::byte> bytes, const std::string& what,
                              const MappedFile* file = nullptr);
// `file` must outlive the tensors.
Safetensors read_safetensors(const MappedFile& file);

// Writes dense tensors (transforms are not applied) beside `path` and renames. Throws
// kInvalidArgument for encoded ones, duplicate names and bytes that do not fit the shape, and what
// the file system gives.
void write_safetensors(const std::filesystem::path& path, std::span<const Tensor> tensors,
                       const std::map<std::string, std::string>& metadata = {});

// "BF16", "F8_E4M3", ...: the format's spelling. Throws kInvalidArgument where it has none.
std::string_view safetensors_dtype(DType dtype);

}  // namespace ttpu::io
