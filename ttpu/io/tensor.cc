#include "ttpu/io/tensor.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "ttpu/base/error.h"
#include "ttpu/io/composite.h"
#include "ttpu/io/ggml_quant.h"
#include "ttpu/io/mxfp4.h"

namespace ttpu::io {
namespace {

constexpr size_t kChunk = 1024;  // values converted at a time where there is no row buffer

template <typename T>
T load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

template <typename T>
void store(std::byte* to, T value) {
  std::memcpy(to, &value, sizeof(T));
}

// The row of the stored matrix that row `row` of the weight comes from.
int64_t stored_row(const Tensor& tensor, int64_t row) {
  const Transform& transform = tensor.transform;
  if (const int64_t heads = transform.permute_heads; heads != 0) {
    // Undoes w.reshape(heads, 2, half).swapaxes(1, 2) of llama.cpp's convert_hf_to_gguf.py.
    const int64_t head_rows = tensor.dims[0] / heads;
    const int64_t half = head_rows / 2;
    const int64_t in_head = row % head_rows;
    return row - in_head + (in_head % half) * 2 + in_head / half;
  }
  if (const int64_t heads = transform.interleave_heads; heads != 0) {
    const int64_t size = tensor.dims[0] / heads / 3;
    const int64_t head = row / (3 * size);
    const int64_t part = row / size % 3;
    return (part * heads + head) * size + row % size;
  }
  return row;
}

void check_permutation(const Tensor& tensor) {
  const Transform& transform = tensor.transform;
  if (!transform.moves_rows()) return;
  const bool interleave = transform.interleave_heads != 0;
  const int64_t heads = interleave ? transform.interleave_heads : transform.permute_heads;
  const int64_t parts = interleave ? 3 : 2;
  require(heads > 0 && (tensor.dims.size() == 1 || tensor.dims.size() == 2) &&
              tensor.dims[0] % parts == 0 && tensor.dims[0] / parts % heads == 0,
          "[checkpoint] tensor '{}' of shape {} has no rows for {} heads of {} parts; the file's "
          "head counts do not fit it",
          tensor.name, dims_to_string(tensor.dims), heads, parts);
}

void check_range(const Tensor& tensor, int64_t begin, int64_t end) {
  check_permutation(tensor);
  if (begin < 0 || begin > end || end > tensor.rows()) {
    fail(Code::kOutOfRange, "[checkpoint] rows [{}, {}) of tensor '{}', which has {}", begin, end,
         tensor.name, tensor.rows());
  }
}

// Dense elements to float32.
void to_f32(DType dtype, const std::byte* in, size_t count, float* out) {
  switch (dtype) {
    case DType::kF32:
      std::memcpy(out, in, count * sizeof(float));
      return;
    case DType::kBF16:
      for (size_t i = 0; i < count; ++i) out[i] = f32_from_bf16(load<uint16_t>(in + 2 * i));
      return;
    case DType::kF16:
      for (size_t i = 0; i < count; ++i) out[i] = fast_f32_from_f16(load<uint16_t>(in + 2 * i));
      return;
    case DType::kF8E4M3FN:
      for (size_t i = 0; i < count; ++i) out[i] = f32_from_f8e4m3fn(load<uint8_t>(in + i));
      return;
    case DType::kF8E5M2:
      for (size_t i = 0; i < count; ++i) out[i] = f32_from_f8e5m2(load<uint8_t>(in + i));
      return;
    default:
      fail(Code::kInternal, "[checkpoint] {} goes through f64", dtype_name(dtype));
  }
}

void from_f32(const float* in, size_t count, DType to, std::byte* out) {
  switch (to) {
    case DType::kF32:
      std::memcpy(out, in, count * sizeof(float));
      return;
    case DType::kBF16:
      for (size_t i = 0; i < count; ++i) store(out + 2 * i, bf16_from_f32(in[i]));
      return;
    case DType::kF16:
      for (size_t i = 0; i < count; ++i) store(out + 2 * i, f16_from_f32(in[i]));
      return;
    case DType::kF8E4M3FN:
      for (size_t i = 0; i < count; ++i) store(out + i, f8e4m3fn_from_f32(in[i]));
      return;
    case DType::kF8E5M2:
      for (size_t i = 0; i < count; ++i) store(out + i, f8e5m2_from_f32(in[i]));
      return;
    case DType::kF64:
      for (size_t i = 0; i < count; ++i) store(out + 8 * i, static_cast<double>(in[i]));
      return;
    default:
      fail(Code::kInternal, "[checkpoint] no floating type {}", dtype_name(to));
  }
}

double load_double(DType dtype, const std::byte* in, size_t i) {
  switch (dtype) {
    case DType::kPred:
    case DType::kU8:
      return load<uint8_t>(in + i);
    case DType::kS8:
      return load<int8_t>(in + i);
    case DType::kS16:
      return load<int16_t>(in + 2 * i);
    case DType::kU16:
      return load<uint16_t>(in + 2 * i);
    case DType::kS32:
      return load<int32_t>(in + 4 * i);
    case DType::kU32:
      return load<uint32_t>(in + 4 * i);
    case DType::kS64:
      return static_cast<double>(load<int64_t>(in + 8 * i));
    case DType::kU64:
      return static_cast<double>(load<uint64_t>(in + 8 * i));
    case DType::kF64:
      return load<double>(in + 8 * i);
    default:
      fail(Code::kInternal, "[checkpoint] {} goes through f32", dtype_name(dtype));
  }
}

bool goes_through_f32(DType dtype) { return is_float(dtype) && dtype != DType::kF64; }

void check_conversion(const Tensor& tensor, DType to) {
  if (tensor.encoding != Encoding::kDense || is_float(tensor.dtype)) {
    if (is_float(to)) return;
  } else if (to == DType::kF32 || to == DType::kF64 || to == tensor.dtype) {
    return;
  }
  fail(Code::kInvalidArgument,
       "[checkpoint] tensor '{}' holds {} values, which do not convert to {}; ask for a floating "
       "type",
       tensor.name,
       tensor.encoding == Encoding::kDense ? dtype_name(tensor.dtype)
                                           : encoding_name(tensor.encoding),
       dtype_name(to));
}

// Bytes of so many values in a row.
size_t stored_bytes(const Tensor& tensor, int64_t values) {
  int64_t bytes = 0;
  if (tensor.transform.mxfp4) {
    bytes = values / kMxfp4Elements * kMxfp4GgmlBytes;
  } else if (tensor.encoding == Encoding::kDense) {
    bytes = values * bit_width(tensor.dtype) / 8;
  } else {
    bytes = values / block_elements(tensor.encoding) * block_bytes(tensor.encoding);
  }
  return static_cast<size_t>(bytes);
}

// `count` stored values of one row, from the row's byte `in` on, transformed and converted.
void convert_run(const Tensor& tensor, const std::byte* in, size_t count, DType to,
                 std::byte* out) {
  const float add = tensor.transform.add;
  const auto out_size = static_cast<size_t>(bit_width(to) / 8);
  const bool blocked = tensor.encoding != Encoding::kDense || tensor.transform.mxfp4;
  if (!blocked && tensor.dtype == to && add == 0) {
    std::memcpy(out, in, count * out_size);
    return;
  }
  float values[kChunk];
  if (blocked) {
    for (size_t done = 0; done < count;) {
      const size_t now = std::min(count - done, kChunk);  // kChunk is a multiple of every block
      const std::byte* from = in + stored_bytes(tensor, static_cast<int64_t>(done));
      if (tensor.transform.mxfp4) {
        mxfp4_from_ggml(from, now, values);
      } else {
        dequantize_row(tensor.encoding, from, static_cast<int64_t>(now), values);
      }
      if (add != 0) {
        for (size_t i = 0; i < now; ++i) values[i] += add;
      }
      from_f32(values, now, to, out + done * out_size);
      done += now;
    }
    return;
  }
  const auto in_size = static_cast<size_t>(bit_width(tensor.dtype) / 8);
  for (size_t done = 0; done < count;) {
    const size_t now = std::min(count - done, kChunk);
    const std::byte* from = in + done * in_size;
    if (goes_through_f32(tensor.dtype)) {
      to_f32(tensor.dtype, from, now, values);
      for (size_t i = 0; add != 0 && i < now; ++i) values[i] += add;
      from_f32(values, now, to, out + done * out_size);
    } else if (to == DType::kF64) {
      for (size_t i = 0; i < now; ++i) {
        store(out + (done + i) * 8, load_double(tensor.dtype, from, i) + static_cast<double>(add));
      }
    } else {
      for (size_t i = 0; i < now; ++i) {
        values[i] = static_cast<float>(load_double(tensor.dtype, from, i)) + add;
      }
      from_f32(values, now, to, out + done * out_size);
    }
    done += now;
  }
}

// The weight is [in, out] and lies as [out, in]: a range of its rows is a range of stored columns.
void copy_transposed(const Tensor& tensor, int64_t begin, int64_t end, DType to, std::byte* out) {
  require(tensor.dims.size() == 2,
          "[checkpoint] tensor '{}' of shape {} cannot be transposed; a matrix is expected",
          tensor.name, dims_to_string(tensor.dims));
  const auto columns = static_cast<size_t>(tensor.dims[0]);  // of the stored matrix
  const auto stored_rows = static_cast<size_t>(tensor.dims[1]);
  const auto size = static_cast<size_t>(bit_width(to) / 8);
  if (columns == 0 || stored_rows == 0) return;
  const size_t stride = tensor.bytes.size() / stored_rows;
  std::vector<std::byte> row(columns * size);
  for (size_t r = 0; r < stored_rows; ++r) {
    convert_run(tensor, tensor.bytes.data() + r * stride, columns, to, row.data());
    for (auto c = static_cast<size_t>(begin); c < static_cast<size_t>(end); ++c) {
      const size_t at = (c - static_cast<size_t>(begin)) * stored_rows + r;
      std::memcpy(out + at * size, row.data() + c * size, size);
    }
  }
}

}  // namespace

int64_t Tensor::num_elements() const {
  // Zero first: the product of the others may not fit.
  if (std::find(dims.begin(), dims.end(), 0) != dims.end()) return 0;
  int64_t count = 1;
  for (const int64_t dim : dims) count *= dim;
  return count;
}

int64_t Tensor::row_elements() const {
  if (dims.empty() || (dims.size() == 1 && transform.moves_rows())) return 1;
  return dims.back();
}

int64_t Tensor::rows() const {
  const int64_t row = row_elements();
  return row == 0 ? 0 : num_elements() / row;
}

int64_t encoded_row_bytes(const Tensor& tensor) {
  return static_cast<int64_t>(stored_bytes(tensor, tensor.row_elements()));
}

void copy_tensor(const Tensor& tensor, DType to, std::byte* out) {
  copy_rows(tensor, 0, tensor.rows(), to, out);
}

void copy_rows(const Tensor& tensor, int64_t begin, int64_t end, DType to, std::byte* out) {
  check_range(tensor, begin, end);
  check_conversion(tensor, to);
  if (begin == end) return;
  if (tensor.transform.composite != nullptr) {
    return tensor.transform.composite->copy_rows(begin, end, to, out);
  }
  if (tensor.bytes.empty()) return;
  if (tensor.transform.transpose) return copy_transposed(tensor, begin, end, to, out);
  const auto row_elements = static_cast<size_t>(tensor.row_elements());
  const auto stride = static_cast<size_t>(encoded_row_bytes(tensor));
  const auto out_stride = row_elements * static_cast<size_t>(bit_width(to) / 8);
  if (!tensor.transform.moves_rows()) {
    return convert_run(tensor, tensor.bytes.data() + static_cast<size_t>(begin) * stride,
                       row_elements * static_cast<size_t>(end - begin), to, out);
  }
  for (int64_t row = begin; row < end; ++row) {
    const auto from = static_cast<size_t>(stored_row(tensor, row));
    convert_run(tensor, tensor.bytes.data() + from * stride, row_elements, to, out);
    out += out_stride;
  }
}

void copy_encoded_rows(const Tensor& tensor, int64_t begin, int64_t end, std::byte* out) {
  check_range(tensor, begin, end);
  if (!tensor.transform.keeps_blocks()) {
    fail(Code::kFailedPrecondition,
         "[checkpoint] tensor '{}' cannot be used as {} blocks, since its values must be changed "
         "first; copy it as dense rows",
         tensor.name, encoding_name(tensor.encoding));
  }
  if (begin == end || tensor.bytes.empty()) return;
  const auto stride = static_cast<size_t>(encoded_row_bytes(tensor));
  if (!tensor.transform.moves_rows()) {
    std::memcpy(out, tensor.bytes.data() + static_cast<size_t>(begin) * stride,
                static_cast<size_t>(end - begin) * stride);
    return;
  }
  for (int64_t row = begin; row < end; ++row, out += stride) {
    const auto from = static_cast<size_t>(stored_row(tensor, row));
    std::memcpy(out, tensor.bytes.data() + from * stride, stride);
  }
}

}  // namespace ttpu::io
