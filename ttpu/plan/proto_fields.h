// The fields of a protobuf message, one after the other.
#pragma once

#include <cstdint>
#include <string_view>

#include "ttpu/base/error.h"

namespace ttpu::plan {

// Throws kDataLoss where the bytes are no message.
class Fields {
 public:
  explicit Fields(std::string_view bytes) : rest_(bytes) {}

  bool next() {
    if (rest_.empty()) return false;
    const uint64_t key = varint();
    number = static_cast<int>(key >> 3);
    value = 0;
    bytes = {};
    switch (key & 7) {
      case 0:
        value = varint();
        return true;
      case 1:
        bytes = take(8);
        return true;
      case 2:
        bytes = take(varint());
        return true;
      case 5:
        bytes = take(4);
        return true;
      default:
        broken();
    }
  }
  uint64_t varint() {
    uint64_t result = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      result |= static_cast<uint64_t>(byte & 127U) << shift;
      if (byte < 128) return result;
    }
    broken();
  }
  bool done() const { return rest_.empty(); }

  int number = 0;
  uint64_t value = 0;
  std::string_view bytes;

 private:
  [[noreturn]] static void broken() {
    fail(Code::kDataLoss,
         "[cost] the compiled program that the plugin gave is not a valid HLO "
         "message; update the plugin with `ttpu plugin install`");
  }
  std::string_view take(uint64_t count) {
    if (count > rest_.size()) broken();
    const std::string_view taken = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return taken;
  }
  std::string_view rest_;
};

}  // namespace ttpu::plan
