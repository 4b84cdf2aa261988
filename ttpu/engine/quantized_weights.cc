// Quantized weights as programs take them: values, scales and zero points as arguments of their
// own, or all of them in ggml's blocks.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "ttpu/base/error.h"
#include "ttpu/engine/weight_parts.h"
#include "ttpu/io/quantized_matrix.h"

namespace ttpu::engine {
namespace {

constexpr int64_t kRowsAtOnce = 64;

template <typename T>
std::byte* store(T value, std::byte* out) {
  std::memcpy(out, &value, sizeof(T));
  return out + sizeof(T);
}

std::byte* store_number(float value, DType dtype, std::byte* out) {
  switch (dtype) {
    case DType::kF32:
      return store(value, out);
    case DType::kF16:
      return store(f16_from_f32(value), out);
    case DType::kBF16:
      return store(bf16_from_f32(value), out);
    default:
      fail(Code::kInternal, "[weights] scales of {}", dtype_name(dtype));
  }
}

// One number for each group of columns, of the first of the rows that share it; the rows' own
// groups are wider. The first of `rows` is row `at` of the matrix.
std::byte* store_numbers(const io::QuantizedRows& rows, const std::vector<float>& numbers,
                         const Quantization& quantization, DType dtype, int64_t at,
                         std::byte* out) {
  const int64_t own = rows.columns / rows.groups;
  const int64_t copies = quantization.group == 0 ? 1 : own / quantization.group;
  for (int64_t row = 0; row < rows.rows; ++row) {
    if ((at + row) % quantization.rows != 0) continue;
    for (int64_t group = 0; group < rows.groups; ++group) {
      const float number = numbers[static_cast<size_t>(row * rows.groups + group)];
      for (int64_t i = 0; i < copies; ++i) out = store_number(number, dtype, out);
    }
  }
  return out;
}

// 32 values of a row: Q4_0, Q4_1 and Q8_0 of ggml (linear/cpu/blocks.h has their layouts).
std::byte* store_block(const int8_t* values, float scale, float zero, Encoding encoding,
                       std::byte* out) {
  constexpr int64_t kHalf = 16;
  out = store(f16_from_f32(scale), out);
  if (encoding == Encoding::kQ8_0) {
    std::memcpy(out, values, 2 * kHalf);
    return out + 2 * kHalf;
  }
  if (encoding == Encoding::kQ4_1) out = store(f16_from_f32(-(zero + 8) * scale), out);
  for (int64_t i = 0; i < kHalf; ++i) {
    const int low = values[i] + 8;
    const int high = values[i + kHalf] + 8;
    *out++ = static_cast<std::byte>(low | high << 4);
  }
  return out;
}

// Twice the numbers that f4E2M1FN's codes stand for are integers.
io::QuantizedRows as_integers(io::QuantizedRows rows) {
  for (int8_t& value : rows.values) {
    value = static_cast<int8_t>(2 * f32_from_f4e2m1fn(static_cast<uint8_t>(value)));
  }
  for (float& scale : rows.scales) scale /= 2;
  return rows;
}

std::byte* store_blocks(const io::QuantizedRows& rows, Encoding encoding, std::byte* out) {
  const int64_t size = block_elements(encoding);
  const int64_t group = rows.columns / rows.groups;
  for (int64_t at = 0; at < rows.rows * rows.columns; at += size) {
    const auto g = static_cast<size_t>(at / group);
    const float zero = rows.zero_points.empty() ? 0 : rows.zero_points[g];
    require(std::abs(rows.scales[g]) <= 65504,
            "[weights] a scale of {} does not fit f16, as the blocks for CPU kernels have it; "
            "expand the weights with --weights bf16",
            rows.scales[g]);
    out = store_block(rows.values.data() + at, rows.scales[g], zero, encoding, out);
  }
  return out;
}

// The part that `decl` names of some rows, from row `at` of the matrix on.
std::byte* store_part(const io::QuantizedRows& rows, const nn::WeightDecl& decl, int64_t at,
                      std::byte* out) {
  if (decl.encoding != Encoding::kDense) {
    const bool floats = decl.quantization->dtype == DType::kF4E2M1FN;
    return store_blocks(floats ? as_integers(rows) : rows, decl.encoding, out);
  }
  switch (decl.part) {
    case nn::WeightDecl::Part::kScales:
      return store_numbers(rows, rows.scales, *decl.quantization, decl.dtype, at, out);
    case nn::WeightDecl::Part::kZeroPoints:
      return store_numbers(rows, rows.zero_points, *decl.quantization, decl.dtype, at, out);
    case nn::WeightDecl::Part::kValues:
      break;
  }
  std::memcpy(out, rows.values.data(), rows.values.size());
  return out + rows.values.size();
}

}  // namespace

int64_t host_bytes(const nn::WeightDecl& decl) {
  const Shape shape = nn::argument_shape(decl);
  return bit_width(shape.dtype) == 4 ? shape.num_elements() : shape.byte_size();
}

std::shared_ptr<std::byte> in_argument_order(const nn::WeightDecl& decl,
                                             std::shared_ptr<std::byte> values) {
  if (!nn::is_by_groups(decl)) return values;
  constexpr int64_t kTile = 64;
  const Shape shape = nn::argument_shape(decl);
  const int64_t in = shape.dims[shape.dims.size() - 3] * shape.dims[shape.dims.size() - 2];
  const int64_t out = shape.dims.back();
  std::shared_ptr<std::byte> result = aligned_bytes(host_bytes(decl));
  const auto tile = [&](const std::byte* from, std::byte* to, int64_t r, int64_t c) {
    for (int64_t row = r; row < std::min(r + kTile, out); ++row) {
      for (int64_t column = c; column < std::min(c + kTile, in); ++column) {
        to[column * out + row] = from[row * in + column];
      }
    }
  };
  for (int64_t matrix = 0; matrix < shape.num_elements(); matrix += in * out) {
    for (int64_t r = 0; r < out; r += kTile) {
      for (int64_t c = 0; c < in; c += kTile)
        tile(values.get() + matrix, result.get() + matrix, r, c);
    }
  }
  return result;
}

Encoding blocks_of(const Quantization& quantization, int64_t columns) {
  const int64_t group =
      quantization.group == 0 ? columns : fitting_group(quantization.group, columns);
  if (group % 32 != 0) return Encoding::kDense;
  if (quantization.dtype == DType::kS4) {
    return quantization.zero_points ? Encoding::kQ4_1 : Encoding::kQ4_0;
  }
  const bool bytes = quantization.dtype == DType::kS8 || quantization.dtype == DType::kF4E2M1FN;
  return bytes && !quantization.zero_points ? Encoding::kQ8_0 : Encoding::kDense;
}

void WeightLoader::fill_quantized(const nn::WeightDecl& decl, const io::Tensor& tensor,
                                  std::byte* out) const {
  const size_t rank = tensor.dims.size();
  const int64_t columns = decl.transposed ? tensor.dims.at(rank - 2) : tensor.dims.back();
  const int64_t rows = tensor.num_elements() / columns / decl.row_stride;
  if (stored_form(decl, tensor)) {
    const io::QuantizedOutputs outputs = quantized_rows(decl, tensor);
    for (int64_t at = 0; at < rows; at += kRowsAtOnce) {
      const int64_t end = std::min(at + kRowsAtOnce, rows);
      const io::QuantizedRows some =
          outputs.matrix ? outputs.read(at, end) : io::rows_of_blocks(tensor, at, end);
      out = store_part(some, decl, at, out);
    }
    return;
  }
  std::vector<float> numbers;
  if (reordered(decl)) {
    nn::WeightDecl dense = whole(decl);
    dense.names = {tensor.name};
    dense.quantization.reset();
    dense.dims = tensor.dims;
    dense.dims[rank - 1] = columns;
    dense.dims[rank - 2] = rows / (rank == 3 ? tensor.dims[0] : 1);
    dense.dtype = DType::kF32;
    dense.encoding = Encoding::kDense;
    dense.part = nn::WeightDecl::Part::kValues;
    numbers.resize(static_cast<size_t>(rows * columns));
    fill(dense, reinterpret_cast<std::byte*>(numbers.data()));
  }
  Quantization quantization = *decl.quantization;
  quantization.group = fitting_group(quantization.group, columns);
  for (int64_t at = 0; at < rows; at += kRowsAtOnce) {
    const int64_t end = std::min(at + kRowsAtOnce, rows);
    const float* from = numbers.data() + at * columns;
    std::vector<float> some;
    if (!reordered(decl)) {
      some.resize(static_cast<size_t>((end - at) * columns));
      io::copy_rows(tensor, at, end, DType::kF32, reinterpret_cast<std::byte*>(some.data()));
      from = some.data();
    }
    out = store_part(io::quantize_rows(from, end - at, columns, quantization), decl, at, out);
  }
}

}  // namespace ttpu::engine
