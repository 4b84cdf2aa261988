// The shapes of Google Cloud's TPU slices.
#pragma once

namespace ttpu::parallel {

// All of v5e and v6e.
inline constexpr const char* kFlatSlices[] = {"1x1", "2x2", "2x4",  "4x4",
                                              "4x8", "8x8", "8x16", "16x16"};
// The smaller ones of v4, v5p and tpu7x; larger ones are of three multiples of 4.
inline constexpr const char* kCubeSlices[] = {"1x1x1", "2x2x1", "2x2x2", "2x2x4", "2x4x4",
                                              "4x4x4", "4x4x8", "4x8x8", "8x8x8"};

}  // namespace ttpu::parallel
