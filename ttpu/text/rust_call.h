// Calls into the Rust library: statuses become ttpu::Error, buffers become C++ values.
#pragma once

#include <string>
#include <string_view>

#include <ttpu_text.h>

#include "ttpu/base/error.h"

namespace ttpu::text {

inline const uint8_t* as_bytes(std::string_view text) {
  return reinterpret_cast<const uint8_t*>(text.data());
}

// Takes over a buffer of the Rust library.
inline std::string take(TtpuBytes bytes) {
  std::string text(reinterpret_cast<const char*>(bytes.data), bytes.len);
  ttpu_text_bytes_free(bytes);
  return text;
}

// Calls `call(TtpuBytes* error)`, which gives a status; throws Error "[part] message" unless it is
// 0.
template <typename Call>
void rust_call(std::string_view part, Call&& call) {
  TtpuBytes message{};
  const int32_t status = call(&message);
  if (status == TTPU_TEXT_OK) return;
  fail(static_cast<Code>(status), "[{}] {}", part, take(message));
}

}  // namespace ttpu::text
