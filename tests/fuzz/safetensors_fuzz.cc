// A .safetensors file of any bytes: refused with an Error, or every tensor can be copied.
#include <cstddef>
#include <cstdint>
#include <vector>

#include "ttpu/base/error.h"
#include "ttpu/io/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const auto bytes = std::as_bytes(std::span(data, size));
    for (const auto& tensor : ttpu::io::parse_safetensors(bytes, "input").tensors) {
      std::vector<std::byte> out(tensor.bytes.size());
      ttpu::io::copy_tensor(tensor, tensor.dtype, out.data());
    }
  } catch (const ttpu::Error&) {
    return 0;
  }
  return 0;
}
