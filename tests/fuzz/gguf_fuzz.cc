// A .gguf file of any bytes: refused with an Error, or its config and tokenizer are made and every
// tensor can be dequantized.
#include <cstddef>
#include <cstdint>
#include <vector>

#include "ttpu/base/error.h"
#include "ttpu/io/gguf_config.h"
#include "ttpu/io/gguf_names.h"
#include "ttpu/io/gguf_tokenizer.h"
#include "ttpu/text/tokenizer.h"

namespace {

template <typename Body>
void attempt(Body&& body) {
  try {
    body();
  } catch (const ttpu::Error&) {
    return;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  attempt([&] {
    const auto gguf = ttpu::io::Gguf::parse(std::as_bytes(std::span(data, size)), "input");
    attempt([&] {
      ttpu::io::gguf_config(gguf).dump(-1, ' ', false, ttpu::Json::error_handler_t::replace);
    });
    attempt([&] { ttpu::io::gguf_generation_config(gguf); });
    attempt(
        [&] { ttpu::text::Tokenizer::from_source(ttpu::io::gguf_tokenizer(gguf)).encode("a b"); });
    attempt([&] { ttpu::io::gguf_tokenizer_config(gguf); });
    for (const auto& tensor : ttpu::io::transformers_tensors(gguf)) {
      attempt([&] {
        std::vector<std::byte> out(static_cast<size_t>(tensor.num_elements()) * 4);
        ttpu::io::copy_tensor(tensor, ttpu::DType::kF32, out.data());
      });
    }
  });
  return 0;
}
