#include "ttpu/text/detokenizer.h"

#include "ttpu/text/rust_call.h"

namespace ttpu::text {

Detokenizer::Detokenizer(const Tokenizer& tokenizer, bool skip_special_tokens) {
  TtpuDetokenizer* handle = nullptr;
  rust_call("detokenizer", [&](TtpuBytes* error) {
    return ttpu_detokenizer_new(tokenizer.handle(), skip_special_tokens, &handle, error);
  });
  handle_.reset(handle);
}

void Detokenizer::Free::operator()(TtpuDetokenizer* handle) const { ttpu_detokenizer_free(handle); }

std::string Detokenizer::push(int32_t id) {
  require(id >= 0, "[detokenizer] negative token id {}", id);
  const uint8_t* text = nullptr;
  uintptr_t size = 0;
  rust_call("detokenizer", [&](TtpuBytes* error) {
    return ttpu_detokenizer_push(handle_.get(), static_cast<uint32_t>(id), &text, &size, error);
  });
  return {reinterpret_cast<const char*>(text), size};
}

std::string Detokenizer::flush() {
  const uint8_t* text = nullptr;
  uintptr_t size = 0;
  rust_call("detokenizer", [&](TtpuBytes* error) {
    return ttpu_detokenizer_flush(handle_.get(), &text, &size, error);
  });
  return {reinterpret_cast<const char*>(text), size};
}

}  // namespace ttpu::text
