// How the numbers of a quantized matrix [out, in] are stored: small ones, and factors that rows or
// groups of neighbours in a row share.
#pragma once

#include <cstdint>
#include <string_view>

#include "ttpu/base/dtype.h"

namespace ttpu {

struct Quantization {
  DType dtype = DType::kS8;  // of the values: kS4, kS8, kF4E2M1FN or kF8E4M3FN
  int64_t group = 0;         // neighbours of a row with one scale; 0: the whole row
  bool zero_points = false;  // of each group: number = scale * (value - zero point)
  // x is rounded to the same type when it is multiplied, with a scale for each token, so that the
  // product itself is one of small numbers. Only where a scale is a row's.
  bool activations = false;
  DType scales = DType::kF32;  // their type
  // Neighbouring rows whose groups share their scales, and zero points: more than one of blocks.
  int64_t rows = 1;
  bool operator==(const Quantization&) const = default;
};

// What --quantization makes of a checkpoint's linear layers when they are loaded: "int8" and "fp8"
// (a scale a row, activations too) and "int4" (groups of 128, weights alone). Throws
// kInvalidArgument for another name.
Quantization parse_quantization(std::string_view name);

// The largest group of at most `wanted` neighbours that divides a row of `columns`: a power of two
// where 32 or more of them do. 0 (whole rows) stays.
int64_t fitting_group(int64_t wanted, int64_t columns);

// The largest part of a block's `wanted` rows that divides `rows`; 1, each row by itself, where
// that is less than a tile of a TPU holds of bytes.
int64_t fitting_rows(int64_t wanted, int64_t rows);

}  // namespace ttpu
