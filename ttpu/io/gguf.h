// The GGUF format, versions 2 and 3, little-endian: metadata and where the tensors lie.
// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "ttpu/io/tensor.h"

namespace ttpu::io {

enum class GgufType : uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};

// One value of the metadata, checked and left where it is in the file.
struct GgufValue {
  GgufType type = GgufType::kU8;
  GgufType item = GgufType::kU8;     // of the items, when an array
  uint64_t count = 1;                // of the items, when an array
  std::span<const std::byte> bytes;  // the value; of a string, the text; of an array, its items
};

// The metadata and tensors of one file, under the file's own names. Points into the file's bytes.
class Gguf {
 public:
  // Checks everything: magic, version, byte order, every length, count, type, alignment and
  // offset, and that tensors neither overlap nor leave the file. `what` names the file in errors.
  // Throws kInvalidArgument; kUnimplemented for a tensor type that is not supported.
  static Gguf parse(std::span<const std::byte> bytes, const std::string& what,
                    const MappedFile* file = nullptr);

  const std::vector<Tensor>& tensors() const { return tensors_; }
  const Tensor* find_tensor(std::string_view name) const;
  const std::vector<std::string_view>& keys() const { return keys_; }
  bool has(std::string_view key) const { return values_.contains(key); }
  const GgufValue* find(std::string_view key) const;

  // Typed reads of any numeric width; nullopt when the key is absent. Throw kInvalidArgument when
  // the type does not fit. A list may stand for a scalar when all its items are equal.
  std::optional<int64_t> get_int(std::string_view key) const;
  std::optional<double> get_float(std::string_view key) const;
  std::optional<bool> get_bool(std::string_view key) const;
  std::optional<std::string_view> get_string(std::string_view key) const;
  // Empty when absent. A scalar counts as a list of one.
  std::vector<int64_t> get_ints(std::string_view key) const;
  std::vector<float> get_floats(std::string_view key) const;
  std::vector<std::string_view> get_strings(std::string_view key) const;

  // "llama", "qwen2", ...: general.architecture. Throws kInvalidArgument when absent.
  std::string_view architecture() const;
  const std::string& what() const { return what_; }

 private:
  std::string what_;
  std::vector<std::string_view> keys_;
  std::unordered_map<std::string_view, GgufValue> values_;
  std::vector<Tensor> tensors_;
  std::unordered_map<std::string_view, size_t> tensor_index_;
};

}  // namespace ttpu::io
