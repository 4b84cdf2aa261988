#include "ttpu/base/dtype.h"

#include <array>
#include <cmath>
#include <limits>
#include <string>

#include "ttpu/base/error.h"

namespace ttpu {
namespace {

struct DTypeInfo {
  DType dtype;
  const char* name;
  int bits;
};

constexpr std::array kInfo = {
    DTypeInfo{DType::kPred, "i1", 8},
    DTypeInfo{DType::kS4, "i4", 4},
    DTypeInfo{DType::kS8, "i8", 8},
    DTypeInfo{DType::kS16, "i16", 16},
    DTypeInfo{DType::kS32, "i32", 32},
    DTypeInfo{DType::kS64, "i64", 64},
    DTypeInfo{DType::kU4, "ui4", 4},
    DTypeInfo{DType::kU8, "ui8", 8},
    DTypeInfo{DType::kU16, "ui16", 16},
    DTypeInfo{DType::kU32, "ui32", 32},
    DTypeInfo{DType::kU64, "ui64", 64},
    DTypeInfo{DType::kF4E2M1FN, "f4E2M1FN", 4},
    DTypeInfo{DType::kF8E4M3FN, "f8E4M3FN", 8},
    DTypeInfo{DType::kF8E5M2, "f8E5M2", 8},
    DTypeInfo{DType::kBF16, "bf16", 16},
    DTypeInfo{DType::kF16, "f16", 16},
    DTypeInfo{DType::kF32, "f32", 32},
    DTypeInfo{DType::kF64, "f64", 64},
};

const DTypeInfo& info(DType dtype) { return kInfo.at(static_cast<size_t>(dtype)); }

// A binary floating type of at most 16 bits: sign, exponent, mantissa.
struct SmallFloat {
  int exponent_bits;
  int mantissa_bits;
  bool has_infinity;  // false: the all-ones exponent holds numbers, and only all ones is NaN
  int bias() const { return (1 << (exponent_bits - 1)) - 1; }
};

constexpr SmallFloat kF16Format{5, 10, true};
constexpr SmallFloat kE4M3Format{4, 3, false};
constexpr SmallFloat kE5M2Format{5, 2, true};

float decode(SmallFloat format, uint32_t bits) {
  const uint32_t mantissa = bits & ((1u << format.mantissa_bits) - 1);
  const int exponent =
      static_cast<int>((bits >> format.mantissa_bits) & ((1u << format.exponent_bits) - 1));
  const bool negative = (bits >> (format.exponent_bits + format.mantissa_bits)) & 1u;
  const int top = (1 << format.exponent_bits) - 1;
  float magnitude = 0;
  if (exponent == top && format.has_infinity) {
    magnitude = mantissa == 0 ? std::numeric_limits<float>::infinity()
                              : std::numeric_limits<float>::quiet_NaN();
  } else if (exponent == top && mantissa == (1u << format.mantissa_bits) - 1) {
    magnitude = std::numeric_limits<float>::quiet_NaN();
  } else if (exponent == 0) {
    magnitude = std::ldexp(static_cast<float>(mantissa), 1 - format.bias() - format.mantissa_bits);
  } else {
    magnitude = std::ldexp(static_cast<float>(mantissa + (1u << format.mantissa_bits)),
                           exponent - format.bias() - format.mantissa_bits);
  }
  return negative ? -magnitude : magnitude;
}

uint32_t encode(SmallFloat format, float value) {
  const int width = format.exponent_bits + format.mantissa_bits;
  const uint32_t sign = std::signbit(value) ? 1u << width : 0u;
  const uint32_t top = ((1u << format.exponent_bits) - 1) << format.mantissa_bits;
  const uint32_t nan = format.has_infinity ? top | (1u << (format.mantissa_bits - 1))
                                           : top | ((1u << format.mantissa_bits) - 1);
  if (std::isnan(value)) return sign | nan;
  const float magnitude = std::fabs(value);
  if (std::isinf(magnitude)) return sign | (format.has_infinity ? top : nan);
  if (magnitude == 0) return sign;
  int exponent = 0;
  std::frexp(magnitude, &exponent);  // magnitude = f * 2^exponent with f in [0.5, 1)
  // The weight of the last mantissa bit; subnormals share the smallest.
  const int step = std::max(exponent - 1, 1 - format.bias()) - format.mantissa_bits;
  // nearbyint rounds to nearest even; the scaled value is exact in double.
  const auto units =
      static_cast<uint32_t>(std::nearbyint(std::ldexp(static_cast<double>(magnitude), -step)));
  // A carry out of the mantissa adds one to the exponent by plain addition.
  const int biased = step + format.mantissa_bits + format.bias();  // 1 for subnormals
  const uint64_t bits = (static_cast<uint64_t>(biased - 1) << format.mantissa_bits) + units;
  const uint64_t limit = format.has_infinity ? top : nan;
  if (bits >= limit) return sign | (format.has_infinity ? top : nan);
  return sign | static_cast<uint32_t>(bits);
}

}  // namespace

int bit_width(DType dtype) { return info(dtype).bits; }
std::string_view dtype_name(DType dtype) { return info(dtype).name; }

DType parse_dtype(std::string_view name) {
  for (const DTypeInfo& entry : kInfo) {
    if (name == entry.name) return entry.dtype;
  }
  std::string known;
  for (const DTypeInfo& entry : kInfo) known += fmt::format(" {}", entry.name);
  fail(Code::kInvalidArgument, "[dtype] '{}' is not an element type; known are:{}", name, known);
}

bool is_float(DType dtype) { return dtype >= DType::kF4E2M1FN; }
bool is_signed_int(DType dtype) { return dtype >= DType::kS4 && dtype <= DType::kS64; }
bool is_unsigned_int(DType dtype) { return dtype >= DType::kU4 && dtype <= DType::kU64; }
bool is_integer(DType dtype) { return is_signed_int(dtype) || is_unsigned_int(dtype); }

uint16_t f16_from_f32(float value) { return static_cast<uint16_t>(encode(kF16Format, value)); }
float f32_from_f16(uint16_t bits) { return decode(kF16Format, bits); }
float f32_from_f4e2m1fn(uint8_t bits) {
  constexpr float kMagnitudes[] = {0.0F, 0.5F, 1.0F, 1.5F, 2.0F, 3.0F, 4.0F, 6.0F};
  const float magnitude = kMagnitudes[bits & 7];
  return (bits & 8) != 0 ? -magnitude : magnitude;
}
uint8_t f8e4m3fn_from_f32(float value) { return static_cast<uint8_t>(encode(kE4M3Format, value)); }
float f32_from_f8e4m3fn(uint8_t bits) { return decode(kE4M3Format, bits); }
uint8_t f8e5m2_from_f32(float value) { return static_cast<uint8_t>(encode(kE5M2Format, value)); }
float f32_from_f8e5m2(uint8_t bits) { return decode(kE5M2Format, bits); }

}  // namespace ttpu
