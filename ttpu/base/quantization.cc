#include "ttpu/base/quantization.h"

#include <algorithm>
#include <numeric>

#include "ttpu/base/error.h"

namespace ttpu {

Quantization parse_quantization(std::string_view name) {
  if (name == "int8") return {DType::kS8, 0, false, true, DType::kF32};
  if (name == "fp8") return {DType::kF8E4M3FN, 0, false, true, DType::kF32};
  if (name == "int4") return {DType::kS4, 128, false, false, DType::kBF16};
  fail(Code::kInvalidArgument,
       "[quantization] '{}' is not known; weights are quantized when they are loaded as int8, fp8 "
       "or int4",
       name);
}

int64_t fitting_group(int64_t wanted, int64_t columns) {
  if (wanted == 0 || columns <= 0) return wanted;
  const int64_t common = std::gcd(wanted, columns);
  if (common >= 32) return common;
  int64_t group = std::min(wanted, columns);
  while (columns % group != 0) --group;
  return group;
}

int64_t fitting_rows(int64_t wanted, int64_t rows) {
  constexpr int64_t kTile = 32;
  const int64_t common = std::gcd(wanted, rows);
  return common % kTile == 0 ? common : 1;
}

}  // namespace ttpu
