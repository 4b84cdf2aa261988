#include "ttpu/io/mxfp4.h"

#include <cmath>
#include <limits>

namespace ttpu::io {

float mxfp4_value(int code, uint8_t scale) {
  constexpr float kValues[] = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                               -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};
  if (scale == 255) return std::numeric_limits<float>::quiet_NaN();
  return std::ldexp(kValues[code], scale - 127);
}

void mxfp4_from_ggml(const std::byte* blocks, size_t count, float* out) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(blocks);
  for (size_t done = 0; done < count; done += kMxfp4Elements, bytes += kMxfp4GgmlBytes) {
    for (size_t i = 0; i < kMxfp4Elements / 2; ++i) {
      out[done + i] = mxfp4_value(bytes[1 + i] & 15, bytes[0]);
      out[done + i + 16] = mxfp4_value(bytes[1 + i] >> 4, bytes[0]);
    }
  }
}

}  // namespace ttpu::io
