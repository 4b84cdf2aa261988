#include <algorithm>
#include <array>
#include <utility>

#include "ttpu/base/error.h"
#include "ttpu/plan/hlo.h"

namespace ttpu::plan {

int64_t HloShape::elements() const {
  int64_t count = 1;
  for (const int64_t dim : dims) count *= dim;
  return count;
}

double HloShape::bytes() const {
  double sum = 0;
  for (const HloShape& part : parts) sum += part.bytes();
  if (is_tuple) return sum;
  return static_cast<double>(elements()) * static_cast<double>(element_bits) / 8;
}

double HloShape::padded_bytes() const {
  double sum = 0;
  for (const HloShape& part : parts) sum += part.padded_bytes();
  if (is_tuple) return sum;
  if (tiles.empty() || minor_to_major.size() != dims.size()) return bytes();
  std::vector<int64_t> padded = dims;
  const std::vector<int64_t>& tile = tiles.front();
  for (size_t i = 0; i < tile.size() && i < padded.size(); ++i) {
    const int64_t step = std::max<int64_t>(1, tile[tile.size() - 1 - i]);
    int64_t& dim = padded.at(static_cast<size_t>(minor_to_major[i]));
    dim = (dim + step - 1) / step * step;
  }
  double count = static_cast<double>(element_bits) / 8;
  for (const int64_t dim : padded) count *= static_cast<double>(dim);
  return count;
}

void set_element_type(std::string_view name, HloShape* shape) {
  static constexpr std::array<std::pair<std::string_view, int64_t>, 19> kBits = {{
      {"pred", 8}, {"f4e2m1fn", 4}, {"s2", 2},   {"u2", 2},   {"s4", 4},   {"u4", 4},   {"s8", 8},
      {"u8", 8},   {"s16", 16},     {"u16", 16}, {"s32", 32}, {"u32", 32}, {"s64", 64}, {"u64", 64},
      {"f16", 16}, {"bf16", 16},    {"f32", 32}, {"f64", 64}, {"c64", 64},
  }};
  shape->is_float8 = name.starts_with("f8") || name.starts_with("f4");
  shape->is_integer = name == "s8" || name == "u8" || name == "s4" || name == "u4";
  if (name.starts_with("f8")) shape->element_bits = 8;
  if (name.starts_with("f4")) shape->element_bits = 4;
  if (name == "c128") shape->element_bits = 128;
  if (shape->element_bits != 0 || name == "token" || name == "opaque") return;
  for (const auto& [known, bits] : kBits) {
    if (known == name) shape->element_bits = bits;
  }
  if (shape->element_bits != 0) return;
  fail(Code::kDataLoss, "[cost] the compiled program has an element type \"{}\", unknown here",
       name);
}

const HloInstruction* HloComputation::find(int64_t id) const {
  const auto found = instructions.find(id);
  return found == instructions.end() ? nullptr : &found->second;
}

const HloComputation* HloModule::find(int64_t id) const {
  const auto found = computations.find(id);
  return found == computations.end() ? nullptr : &found->second;
}

}  // namespace ttpu::plan
