// Private to ttpu/pjrt: 4-bit elements, packed two to a byte (ours, the lower half first) or one to
// a byte (PJRT's host arrays).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace ttpu::pjrt {

inline void pack_nibbles(std::span<const uint8_t> unpacked, uint8_t* packed) {
  for (size_t i = 0; i < unpacked.size(); i += 2) {
    const int high = i + 1 < unpacked.size() ? unpacked[i + 1] & 15 : 0;
    packed[i / 2] = static_cast<uint8_t>((unpacked[i] & 15) | (high << 4));
  }
}

inline std::vector<uint8_t> unpack_nibbles(const uint8_t* packed, size_t count, bool is_signed) {
  std::vector<uint8_t> unpacked(count);
  for (size_t i = 0; i < count; ++i) {
    int value = (packed[i / 2] >> (i % 2 * 4)) & 15;
    if (is_signed && value >= 8) value -= 16;
    unpacked[i] = static_cast<uint8_t>(value);
  }
  return unpacked;
}

}  // namespace ttpu::pjrt
