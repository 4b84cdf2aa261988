// A constant array on the host.
#pragma once

#include <bit>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "ttpu/base/shape.h"

namespace ttpu::ir {

// Row-major elements, little endian. A 4-bit element takes a whole byte, as in PJRT's host buffers.
// A splat keeps one element for all.
class Literal {
 public:
  Literal() = default;
  // Throws unless `bytes` has element_bytes(dtype) for each element.
  Literal(Shape shape, std::vector<std::byte> bytes);

  // Each number is converted to the dtype: floats round to nearest even, integers must fit.
  static Literal from_doubles(Shape shape, std::span<const double> values);
  static Literal from_ints(Shape shape, std::span<const int64_t> values);
  static Literal splat(Shape shape, double value);
  static Literal splat_int(Shape shape, int64_t value);

  static int64_t element_bytes(DType dtype);

  const Shape& shape() const { return shape_; }
  bool is_splat() const { return is_splat_; }
  // The elements kept: one for a splat.
  std::span<const std::byte> bytes() const { return bytes_; }
  // Element `index` in row-major order; 64-bit integers beyond 2^53 round in number().
  double number(int64_t index) const;
  int64_t integer(int64_t index) const;  // bits of ui64 reinterpreted
  std::vector<double> numbers() const;

  // The attribute as StableHLO text: "dense<[1, 2]> : tensor<2xi32>"; long ones in hexadecimal.
  std::string to_string() const;

  bool operator==(const Literal&) const = default;

 private:
  Shape shape_;
  std::vector<std::byte> bytes_;
  bool is_splat_ = false;
};

}  // namespace ttpu::ir
