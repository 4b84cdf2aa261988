#include "ttpu/ir/literal.h"

#include <cmath>
#include <cstring>

#include <fmt/format.h>

#include "ttpu/base/error.h"

namespace ttpu::ir {
namespace {

// Beyond so many elements the text is hexadecimal.
constexpr int64_t kLongestList = 16;

template <typename T>
void store(T value, std::byte* out) {
  std::memcpy(out, &value, sizeof(T));
}

template <typename T>
T load(const std::byte* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(T));
  return value;
}

void encode_int(DType dtype, int64_t value, std::byte* out) {
  const int bits = dtype == DType::kPred ? 1 : bit_width(dtype);
  const bool is_signed = is_signed_int(dtype);
  if (bits < 64) {
    const int64_t low = is_signed ? -(int64_t{1} << (bits - 1)) : 0;
    const int64_t high = is_signed ? (int64_t{1} << (bits - 1)) - 1 : (int64_t{1} << bits) - 1;
    require(value >= low && value <= high, "[literal] {} does not fit {} ([{}, {}])", value,
            dtype_name(dtype), low, high);
  }
  std::memcpy(out, &value, static_cast<size_t>(Literal::element_bytes(dtype)));
}

void encode(DType dtype, double value, std::byte* out) {
  const auto narrow = static_cast<float>(value);
  switch (dtype) {
    case DType::kF64:
      return store(value, out);
    case DType::kF32:
      return store(narrow, out);
    case DType::kBF16:
      return store(bf16_from_f32(narrow), out);
    case DType::kF16:
      return store(f16_from_f32(narrow), out);
    case DType::kF8E4M3FN:
      return store(f8e4m3fn_from_f32(narrow), out);
    case DType::kF8E5M2:
      return store(f8e5m2_from_f32(narrow), out);
    default:
      break;
  }
  require(std::nearbyint(value) == value && value >= -0x1p63 && value < 0x1p63,
          "[literal] {} is no integer that fits {}", value, dtype_name(dtype));
  encode_int(dtype, static_cast<int64_t>(value), out);
}

double decode(DType dtype, const std::byte* bytes) {
  switch (dtype) {
    case DType::kF64:
      return load<double>(bytes);
    case DType::kF32:
      return load<float>(bytes);
    case DType::kBF16:
      return f32_from_bf16(load<uint16_t>(bytes));
    case DType::kF16:
      return f32_from_f16(load<uint16_t>(bytes));
    case DType::kF4E2M1FN:
      return f32_from_f4e2m1fn(load<uint8_t>(bytes));
    case DType::kF8E4M3FN:
      return f32_from_f8e4m3fn(load<uint8_t>(bytes));
    case DType::kF8E5M2:
      return f32_from_f8e5m2(load<uint8_t>(bytes));
    default:
      return 0;
  }
}

int64_t decode_int(DType dtype, const std::byte* bytes) {
  const auto size = static_cast<size_t>(Literal::element_bytes(dtype));
  uint64_t raw = 0;
  std::memcpy(&raw, bytes, size);
  const int unused = 64 - static_cast<int>(size) * 8;
  if (!is_signed_int(dtype)) return static_cast<int64_t>(raw);
  return static_cast<int64_t>(raw << unused) >> unused;
}

std::string hex(const std::byte* bytes, size_t size, bool reversed) {
  std::string text = "0x";
  for (size_t i = 0; i < size; ++i) {
    fmt::format_to(std::back_inserter(text), "{:02X}",
                   static_cast<unsigned>(bytes[reversed ? size - 1 - i : i]));
  }
  return text;
}

// The shortest decimal that reads back, with the point that MLIR wants.
template <typename T>
std::string decimal(T value) {
  std::string text = fmt::format("{}", value);
  if (text.find('.') != std::string::npos) return text;
  const size_t exponent = text.find('e');
  return text.insert(exponent == std::string::npos ? text.size() : exponent, ".0");
}

std::string element(DType dtype, const std::byte* bytes) {
  if (dtype == DType::kPred) return load<uint8_t>(bytes) != 0 ? "true" : "false";
  if (!is_float(dtype)) {
    const int64_t value = decode_int(dtype, bytes);
    if (dtype == DType::kU64) return fmt::format("{}", static_cast<uint64_t>(value));
    return fmt::format("{}", value);
  }
  const double value = decode(dtype, bytes);
  const auto size = static_cast<size_t>(Literal::element_bytes(dtype));
  if (!std::isfinite(value)) return hex(bytes, size, true);
  if (dtype == DType::kF64) return decimal(value);
  // The plugin reads a double and rounds it; take no chance where that is not the same number.
  std::string text = decimal(static_cast<float>(value));
  if (static_cast<double>(static_cast<float>(std::strtod(text.c_str(), nullptr))) == value) {
    return text;
  }
  return hex(bytes, size, true);
}

void append_list(std::string& out, const Literal& literal, size_t depth, int64_t& index) {
  const Dims& dims = literal.shape().dims;
  const auto size = static_cast<size_t>(Literal::element_bytes(literal.shape().dtype));
  if (depth == dims.size()) {
    out += element(literal.shape().dtype,
                   literal.bytes().data() + static_cast<size_t>(index++) * size);
    return;
  }
  out += '[';
  for (int64_t i = 0; i < dims[depth]; ++i) {
    if (i > 0) out += ", ";
    append_list(out, literal, depth + 1, index);
  }
  out += ']';
}

template <typename T, typename Encode>
Literal from_values(Shape shape, std::span<const T> values, Encode encode_one) {
  require(static_cast<int64_t>(values.size()) == shape.num_elements(), "[literal] {} values for {}",
          values.size(), shape.to_string());
  const auto size = static_cast<size_t>(Literal::element_bytes(shape.dtype));
  std::vector<std::byte> bytes(values.size() * size);
  for (size_t i = 0; i < values.size(); ++i) {
    encode_one(shape.dtype, values[i], bytes.data() + i * size);
  }
  return Literal(std::move(shape), std::move(bytes));
}

}  // namespace

int64_t Literal::element_bytes(DType dtype) { return (bit_width(dtype) + 7) / 8; }

Literal::Literal(Shape shape, std::vector<std::byte> bytes)
    : shape_(std::move(shape)), bytes_(std::move(bytes)) {
  const auto size = static_cast<size_t>(element_bytes(shape_.dtype));
  const auto count = static_cast<size_t>(shape_.num_elements());
  require(bytes_.size() == size * count, "[literal] {} bytes for {}, which takes {}", bytes_.size(),
          shape_.to_string(), size * count);
  // All elements equal the first when the array equals itself shifted by one element.
  if (count > 1 && std::memcmp(bytes_.data(), bytes_.data() + size, size * (count - 1)) == 0) {
    bytes_.resize(size);
    bytes_.shrink_to_fit();
    is_splat_ = true;
  }
}

Literal Literal::from_doubles(Shape shape, std::span<const double> values) {
  return from_values(std::move(shape), values, encode);
}

Literal Literal::from_ints(Shape shape, std::span<const int64_t> values) {
  if (is_float(shape.dtype)) {
    const std::vector<double> numbers(values.begin(), values.end());
    return from_doubles(std::move(shape), numbers);
  }
  return from_values(std::move(shape), values, encode_int);
}

Literal Literal::splat(Shape shape, double value) {
  Literal one = from_doubles(Shape(shape.dtype, {}), std::span(&value, 1));
  const int64_t count = shape.num_elements();
  one.shape_ = std::move(shape);
  one.is_splat_ = count > 1;
  if (count == 0) one.bytes_.clear();
  return one;
}

Literal Literal::splat_int(Shape shape, int64_t value) {
  Literal one = from_ints(Shape(shape.dtype, {}), std::span(&value, 1));
  const int64_t count = shape.num_elements();
  one.shape_ = std::move(shape);
  one.is_splat_ = count > 1;
  if (count == 0) one.bytes_.clear();
  return one;
}

double Literal::number(int64_t index) const {
  if (is_float(shape_.dtype)) {
    const auto at = static_cast<size_t>(is_splat_ ? 0 : index * element_bytes(shape_.dtype));
    require(at < bytes_.size(), "[literal] element {} of {}", index, shape_.to_string());
    return decode(shape_.dtype, bytes_.data() + at);
  }
  const int64_t value = integer(index);
  return shape_.dtype == DType::kU64 ? static_cast<double>(static_cast<uint64_t>(value))
                                     : static_cast<double>(value);
}

int64_t Literal::integer(int64_t index) const {
  if (is_float(shape_.dtype)) return static_cast<int64_t>(number(index));
  const auto at = static_cast<size_t>(is_splat_ ? 0 : index * element_bytes(shape_.dtype));
  require(at < bytes_.size(), "[literal] element {} of {}", index, shape_.to_string());
  return decode_int(shape_.dtype, bytes_.data() + at);
}

std::vector<double> Literal::numbers() const {
  std::vector<double> result(static_cast<size_t>(shape_.num_elements()));
  for (size_t i = 0; i < result.size(); ++i) result[i] = number(static_cast<int64_t>(i));
  return result;
}

std::string Literal::to_string() const {
  std::string body;
  const int64_t count = shape_.num_elements();
  if (is_splat_ || (count == 1 && shape_.rank() == 0)) {
    body = element(shape_.dtype, bytes_.data());
  } else if (count > kLongestList && shape_.dtype != DType::kPred && bit_width(shape_.dtype) >= 8) {
    body = '"' + hex(bytes_.data(), bytes_.size(), false) + '"';
  } else if (count > 0) {
    int64_t index = 0;
    append_list(body, *this, 0, index);
  }
  return fmt::format("dense<{}> : {}", body, shape_.to_string());
}

}  // namespace ttpu::ir
