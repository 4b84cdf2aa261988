#pragma once

#include <cstdint>

namespace ttpu::kernels {

// Numbers along the last dimension of a TPU's register (8 x 128): what an array's tiles fill up to.
inline constexpr int64_t kTpuLanes = 128;

}  // namespace ttpu::kernels
