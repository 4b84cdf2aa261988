// How the elements of a weight are stored: plainly, or in ggml's blocks (the tensor types of GGUF).
// A row of a blocked matrix is a whole number of blocks.
#pragma once

#include <cstdint>
#include <string_view>

namespace ttpu {

enum class Encoding : uint8_t {
  kDense,  // plain elements of some DType
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  kQ2_K,
  kQ3_K,
  kQ4_K,
  kQ5_K,
  kQ6_K,
};

// Elements one block holds (32 or 256) and the bytes it takes. 0 for kDense.
int64_t block_elements(Encoding encoding);
int64_t block_bytes(Encoding encoding);
// "Q4_K", ggml's spelling; "dense".
std::string_view encoding_name(Encoding encoding);
// Throws kInvalidArgument and lists the known names.
Encoding parse_encoding(std::string_view name);

}  // namespace ttpu
