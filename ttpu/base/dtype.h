// Element types, spelled as StableHLO spells them, and conversions of the small floating types.
#pragma once

#include <bit>
#include <cstdint>
#include <string_view>

namespace ttpu {

enum class DType : uint8_t {
  kPred,
  kS4,
  kS8,
  kS16,
  kS32,
  kS64,
  kU4,
  kU8,
  kU16,
  kU32,
  kU64,
  kF4E2M1FN,
  kF8E4M3FN,
  kF8E5M2,
  kBF16,
  kF16,
  kF32,
  kF64,
};

// Bits one element takes: 4 for kS4, kU4 and kF4E2M1FN, 8 for kPred.
int bit_width(DType dtype);
// "i1", "i4", "ui8", "f8E4M3FN", "bf16", ...: the StableHLO spelling.
std::string_view dtype_name(DType dtype);
// The inverse of dtype_name. Throws kInvalidArgument and lists the known names.
DType parse_dtype(std::string_view name);

bool is_float(DType dtype);
bool is_signed_int(DType dtype);
bool is_unsigned_int(DType dtype);
bool is_integer(DType dtype);  // signed or unsigned, not kPred

// bf16 is the upper half of an f32. Rounds to nearest even; NaN stays NaN.
inline uint16_t bf16_from_f32(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x0040u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
inline float f32_from_bf16(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}
uint16_t f16_from_f32(float value);
float f32_from_f16(uint16_t bits);
float f32_from_f4e2m1fn(uint8_t bits);   // the lower four
uint8_t f8e4m3fn_from_f32(float value);  // saturates to NaN above 448, as StableHLO converts
float f32_from_f8e4m3fn(uint8_t bits);
uint8_t f8e5m2_from_f32(float value);
float f32_from_f8e5m2(uint8_t bits);

}  // namespace ttpu
