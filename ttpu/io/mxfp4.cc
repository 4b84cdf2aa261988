#include "ttpu/io/mxfp4.h"

#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "ttpu/io/quantized_matrix.h"

namespace ttpu::io {
namespace {

constexpr size_t kBlockBytes = kMxfp4Elements / 2;

// The two values of each byte, next to each other or half a block apart.
void codes_of(const uint8_t* bytes, bool neighbours, int8_t* codes) {
  for (size_t i = 0; i < kBlockBytes; ++i) {
    codes[neighbours ? 2 * i : i] = static_cast<int8_t>(bytes[i] & 15);
    codes[neighbours ? 2 * i + 1 : i + kBlockBytes] = static_cast<int8_t>(bytes[i] >> 4);
  }
}

// parts(): blocks and scales, or ggml's blocks, which begin with their scale.
class Mxfp4Matrix : public QuantizedMatrix {
 public:
  Mxfp4Matrix(std::vector<Tensor> parts, int64_t columns)
      : QuantizedMatrix(std::move(parts), columns,
                        {DType::kF4E2M1FN, kMxfp4Elements, false, false, DType::kBF16}) {}

  QuantizedRows read(int64_t begin, int64_t end) const override {
    const auto groups = static_cast<size_t>(columns() / kMxfp4Elements);
    const auto count = static_cast<size_t>(end - begin) * groups;
    QuantizedRows rows{end - begin, columns(), static_cast<int64_t>(groups), {}, {}, {}};
    rows.values.resize(count * kMxfp4Elements);
    rows.scales.resize(count);
    const auto* bytes = reinterpret_cast<const uint8_t*>(parts()[0].bytes.data());
    const bool ggml = parts().size() == 1;
    const size_t size = ggml ? kMxfp4GgmlBytes : kBlockBytes;
    for (size_t i = 0; i < count; ++i) {
      const size_t at = static_cast<size_t>(begin) * groups + i;
      const uint8_t* block = bytes + at * size;
      const uint8_t exponent = ggml ? *block++ : static_cast<uint8_t>(parts()[1].bytes[at]);
      codes_of(block, !ggml, rows.values.data() + i * kMxfp4Elements);
      rows.scales[i] = mxfp4_scale(exponent);
    }
    return rows;
  }
};

Tensor matrix_of(std::string name, Dims dims, std::vector<Tensor> parts) {
  Tensor tensor;
  tensor.name = std::move(name);
  tensor.dtype = DType::kBF16;
  tensor.file = parts[0].file;
  tensor.transform.composite = std::make_shared<Mxfp4Matrix>(std::move(parts), dims.back());
  tensor.dims = std::move(dims);
  return tensor;
}

}  // namespace

float mxfp4_scale(uint8_t exponent) {
  if (exponent == 255) return std::numeric_limits<float>::quiet_NaN();
  return std::ldexp(1.0F, exponent - 127);
}

void mxfp4_from_ggml(const std::byte* blocks, size_t count, float* out) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(blocks);
  int8_t codes[kMxfp4Elements];
  for (size_t done = 0; done < count; done += kMxfp4Elements, bytes += kMxfp4GgmlBytes) {
    codes_of(bytes + 1, false, codes);
    const float scale = mxfp4_scale(bytes[0]);
    for (size_t i = 0; i < kMxfp4Elements; ++i) {
      out[done + i] = f32_from_f4e2m1fn(static_cast<uint8_t>(codes[i])) * scale;
    }
  }
}

Tensor mxfp4_matrix(std::string name, const Tensor& blocks, const Tensor& scales) {
  Dims dims = scales.dims;
  dims.back() *= kMxfp4Elements;
  return matrix_of(std::move(name), std::move(dims), {blocks, scales});
}

Tensor mxfp4_matrix(const Tensor& ggml) { return matrix_of(ggml.name, ggml.dims, {ggml}); }

}  // namespace ttpu::io
