#include "ttpu/io/quantized_matrix.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "ttpu/base/error.h"
#include "ttpu/io/ggml_quant.h"

namespace ttpu::io {
namespace {

constexpr int64_t kRowsAtOnce = 64;

float rounded(float value, DType dtype) {
  if (dtype == DType::kBF16) return f32_from_bf16(bf16_from_f32(value));
  if (dtype == DType::kF16) return fast_f32_from_f16(f16_from_f32(value));
  return value;
}

// The largest value of a type.
float most(DType dtype) {
  if (dtype == DType::kS4) return 7;
  return dtype == DType::kS8 ? 127 : 448;
}

struct Extremes {
  float low = 0;
  float high = 0;
  float absolute() const { return std::max(-low, high); }
};

Extremes extremes_of(const float* numbers, int64_t count) {
  Extremes found;
  for (int64_t i = 0; i < count; ++i) {
    found.low = std::min(found.low, numbers[i]);
    found.high = std::max(found.high, numbers[i]);
  }
  return found;
}

// Integers to the nearest, ties to even. `low`: the lowest value.
void round_all(const float* numbers, int64_t count, float inverse, float low, float high,
               float* values) {
  for (int64_t i = 0; i < count; ++i) {
    // Adding and taking away 1.5 * 2^23 leaves the nearest integer, and vectorizes.
    constexpr float kMagic = 12582912.0F;
    const float bounded = std::clamp(numbers[i] * inverse, low, high);
    values[i] = (bounded + kMagic) - kMagic;
  }
}

float squared_error(const float* numbers, const float* values, int64_t count, float scale) {
  constexpr int64_t kLanes = 16;  // sums that the compiler may keep side by side
  float sums[kLanes] = {};
  int64_t i = 0;
  const auto add = [&](int64_t lane) {
    const float error = numbers[i + lane] - values[i + lane] * scale;
    sums[lane] += error * error;
  };
  for (; i + kLanes <= count; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) add(lane);
  }
  for (int64_t lane = 0; lane < count - i; ++lane) add(lane);
  return std::accumulate(std::begin(sums), std::end(sums), 0.0F);
}

// Of a group of 4-bit integers: among steps from one that clips nothing to one that clips a fifth,
// of either sign (there is one value more below zero than above), that with the least error.
float best_int4_scale(const float* numbers, int64_t count, DType scales, float* values) {
  constexpr int kTrials = 9;
  const Extremes extremes = extremes_of(numbers, count);
  const float larger = extremes.high > -extremes.low ? extremes.high : extremes.low;
  if (larger == 0) return 0;
  float best = 0;
  float least = INFINITY;
  for (const float end : {larger / -8, std::abs(larger) / 7}) {
    for (int trial = 0; trial < kTrials; ++trial) {
      const float scale = rounded(end * (1.0F - 0.025F * static_cast<float>(trial)), scales);
      if (scale == 0) continue;
      round_all(numbers, count, 1 / scale, -8, 7, values);
      const float error = squared_error(numbers, values, count, scale);
      if (error < least) {
        least = error;
        best = scale;
      }
    }
  }
  return best;
}

float scale_of(const float* numbers, int64_t count, const Quantization& quantization,
               float* scratch) {
  if (quantization.dtype == DType::kS4) {
    return best_int4_scale(numbers, count, quantization.scales, scratch);
  }
  return rounded(extremes_of(numbers, count).absolute() / most(quantization.dtype),
                 quantization.scales);
}

void store_values(const float* numbers, int64_t count, DType dtype, float scale, float* scratch,
                  int8_t* values) {
  if (scale == 0) {
    std::fill_n(values, count, int8_t{0});
    return;
  }
  const float high = most(dtype);
  if (dtype == DType::kF8E4M3FN) {
    for (int64_t i = 0; i < count; ++i) {
      values[i] =
          static_cast<int8_t>(f8e4m3fn_from_f32(std::clamp(numbers[i] / scale, -high, high)));
    }
    return;
  }
  round_all(numbers, count, 1 / scale, dtype == DType::kS4 ? -8 : -127, high, scratch);
  for (int64_t i = 0; i < count; ++i) values[i] = static_cast<int8_t>(scratch[i]);
}

float number_of(int8_t value, DType dtype) {
  if (dtype == DType::kF8E4M3FN) return f32_from_f8e4m3fn(static_cast<uint8_t>(value));
  if (dtype == DType::kF4E2M1FN) return f32_from_f4e2m1fn(static_cast<uint8_t>(value));
  return static_cast<float>(value);
}

}  // namespace

std::vector<float> QuantizedRows::numbers(DType dtype) const {
  std::vector<float> result(values.size());
  const int64_t group = groups == 0 ? 1 : columns / groups;
  for (int64_t g = 0; g < rows * groups; ++g) {
    const float scale = scales[static_cast<size_t>(g)];
    const float zero = zero_points.empty() ? 0 : zero_points[static_cast<size_t>(g)];
    for (int64_t i = g * group; i < (g + 1) * group; ++i) {
      const float number = number_of(values[static_cast<size_t>(i)], dtype);
      result[static_cast<size_t>(i)] = (number - zero) * scale;
    }
  }
  return result;
}

void QuantizedRows::append(const QuantizedRows& more) {
  rows += more.rows;
  values.insert(values.end(), more.values.begin(), more.values.end());
  scales.insert(scales.end(), more.scales.begin(), more.scales.end());
  zero_points.insert(zero_points.end(), more.zero_points.begin(), more.zero_points.end());
}

QuantizedRows quantize_rows(const float* numbers, int64_t rows, int64_t columns,
                            const Quantization& quantization) {
  const int64_t group = quantization.group == 0 ? columns : quantization.group;
  require(group > 0 && columns % group == 0 && !quantization.zero_points,
          "[quantize] rows of {} columns in groups of {}{}; groups must divide them, and zero "
          "points are not made",
          columns, group, quantization.zero_points ? ", with zero points" : "");
  QuantizedRows result{rows, columns, columns / group, {}, {}, {}};
  result.values.resize(static_cast<size_t>(rows * columns));
  result.scales.resize(static_cast<size_t>(rows * result.groups));
  std::vector<float> scratch(static_cast<size_t>(group));
  for (int64_t g = 0; g < rows * result.groups; ++g) {
    const float* from = numbers + g * group;
    const float scale = scale_of(from, group, quantization, scratch.data());
    result.scales[static_cast<size_t>(g)] = scale;
    store_values(from, group, quantization.dtype, scale, scratch.data(),
                 result.values.data() + g * group);
  }
  return result;
}

Quantization groups_of(Encoding encoding) {
  Quantization form;
  form.group = block_group(encoding);
  switch (encoding) {
    case Encoding::kQ4_0:
    case Encoding::kQ3_K:
      form.dtype = DType::kS4;
      break;
    case Encoding::kQ4_1:
    case Encoding::kQ2_K:
    case Encoding::kQ4_K:
      form.dtype = DType::kS4;
      form.zero_points = true;
      break;
    case Encoding::kQ5_1:
    case Encoding::kQ5_K:
      form.zero_points = true;
      break;
    default:  // integers of up to eight bits
      break;
  }
  return form;
}

namespace {

// The block's values from `values` on. Codes from zero on become values of 4 bits from -8 on.
void append_block(const Block& block, int64_t elements, const Quantization& form, int8_t* values,
                  QuantizedRows* rows) {
  const int offset = form.zero_points && form.dtype == DType::kS4 ? 8 : 0;
  for (int64_t i = 0; i < elements; ++i) {
    values[i] = static_cast<int8_t>(block.codes[i] - offset);
  }
  for (int64_t g = 0; g < elements / form.group; ++g) {
    const float scale = block.scales[g];
    const bool constant = form.zero_points && scale == 0;  // the minimum's opposite
    if (constant) std::fill_n(values + g * form.group, form.group, int8_t{0});
    rows->scales.push_back(constant ? block.minima[g] : scale);
    if (!form.zero_points) continue;
    const float zero = block.minima[g] / scale - static_cast<float>(offset);
    rows->zero_points.push_back(constant ? 1 : zero);
  }
}

}  // namespace

QuantizedRows rows_of_blocks(const Tensor& tensor, int64_t begin, int64_t end) {
  const Quantization form = groups_of(tensor.encoding);
  const int64_t elements = block_elements(tensor.encoding);
  const int64_t columns = tensor.dims.back();
  const int64_t blocks = (end - begin) * columns / elements;
  std::vector<std::byte> bytes(static_cast<size_t>(blocks * block_bytes(tensor.encoding)));
  copy_encoded_rows(tensor, begin, end, bytes.data());
  QuantizedRows rows{end - begin, columns, columns / form.group, {}, {}, {}};
  rows.values.resize(static_cast<size_t>(blocks * elements));
  for (int64_t i = 0; i < blocks; ++i) {
    append_block(read_block(tensor.encoding, bytes.data() + i * block_bytes(tensor.encoding)),
                 elements, form, rows.values.data() + i * elements, &rows);
  }
  return rows;
}

void QuantizedMatrix::copy_rows(int64_t begin, int64_t end, DType to, std::byte* out) const {
  const auto width = static_cast<size_t>(bit_width(to) / 8);
  for (int64_t at = begin; at < end; at += kRowsAtOnce) {
    const std::vector<float> numbers =
        read(at, std::min(at + kRowsAtOnce, end)).numbers(quantization_.dtype);
    Tensor some;
    some.dims = {static_cast<int64_t>(numbers.size())};
    some.bytes = std::as_bytes(std::span(numbers));
    copy_tensor(some, to, out);
    out += numbers.size() * width;
  }
}

const QuantizedMatrix* quantized_of(const Tensor& tensor) {
  return dynamic_cast<const QuantizedMatrix*>(tensor.transform.composite.get());
}

}  // namespace ttpu::io
