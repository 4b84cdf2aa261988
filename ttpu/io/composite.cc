#include "ttpu/io/composite.h"

#include <algorithm>
#include <cstring>

#include "ttpu/base/error.h"
#include "ttpu/io/mxfp4.h"
#include "ttpu/io/quantized_matrix.h"

namespace ttpu::io {
namespace {

size_t width_of(DType dtype) { return static_cast<size_t>(bit_width(dtype) / 8); }

void require_fit(bool fits, const std::string& name, const std::vector<Tensor>& parts) {
  std::string shapes;
  for (const Tensor& part : parts) {
    shapes += fmt::format(" '{}' {}", part.name, dims_to_string(part.dims));
  }
  require(fits, "[checkpoint] '{}' is put together from parts that do not fit each other:{}", name,
          shapes);
}

// One matrix of a stack.
Tensor slice(const Tensor& stack, int64_t index) {
  Tensor one = stack;
  one.dims.erase(one.dims.begin());
  const auto size = stack.bytes.size() / static_cast<size_t>(stack.dims[0]);
  one.bytes = stack.bytes.subspan(static_cast<size_t>(index) * size, size);
  return one;
}

void copy_slice(const Tensor& stack, int64_t index, DType to, std::byte* out) {
  if (stack.transform.composite == nullptr) return copy_tensor(slice(stack, index), to, out);
  const int64_t rows = stack.dims[1];
  copy_rows(stack, index * rows, (index + 1) * rows, to, out);
}

// out[c * stride] = in[c] for each of `count` values.
void scatter(const std::byte* in, size_t count, size_t width, size_t stride, std::byte* out) {
  for (size_t c = 0; c < count; ++c) std::memcpy(out + c * stride * width, in + c * width, width);
}

Tensor composed(std::string name, Dims dims, std::shared_ptr<const Composite> composite) {
  const Tensor& first = composite->parts().front();
  Tensor tensor;
  tensor.name = std::move(name);
  tensor.dims = std::move(dims);
  tensor.dtype = first.dtype;
  tensor.file = first.file;
  tensor.transform.composite = std::move(composite);
  return tensor;
}

// Stacks [experts, out, in] as [experts, in, out * stacks].
class TransposedStacks : public Composite {
 public:
  using Composite::Composite;
  void copy_rows(int64_t begin, int64_t end, DType to, std::byte* out) const override {
    const size_t width = width_of(to);
    const auto outputs = static_cast<size_t>(parts()[0].dims[1]);
    const auto inputs = static_cast<size_t>(parts()[0].dims[2]);
    const size_t row = outputs * parts().size();
    std::vector<std::byte> matrix(outputs * inputs * width);
    for (int64_t at = begin; at < end;) {
      const int64_t expert = at / parts()[0].dims[2];
      const auto first = static_cast<size_t>(at % parts()[0].dims[2]);
      const size_t count = std::min(inputs - first, static_cast<size_t>(end - at));
      for (size_t p = 0; p < parts().size(); ++p) {
        copy_slice(parts()[p], expert, to, matrix.data());
        for (size_t o = 0; o < outputs; ++o) {
          scatter(matrix.data() + (o * inputs + first) * width, count, width, row,
                  out + (o * parts().size() + p) * width);
        }
      }
      at += static_cast<int64_t>(count);
      out += count * row * width;
    }
  }
};

// Vectors [experts, out] as [experts, out * parts].
class AlternatingVectors : public Composite {
 public:
  using Composite::Composite;
  void copy_rows(int64_t begin, int64_t end, DType to, std::byte* out) const override {
    const size_t width = width_of(to);
    const auto outputs = static_cast<size_t>(parts()[0].dims[1]);
    std::vector<std::byte> row(outputs * width);
    for (int64_t expert = begin; expert < end; ++expert) {
      for (size_t p = 0; p < parts().size(); ++p) {
        io::copy_rows(parts()[p], expert, expert + 1, to, row.data());
        scatter(row.data(), outputs, width, parts().size(), out + p * width);
      }
      out += outputs * parts().size() * width;
    }
  }
};

// k_b's columns and v_b's rows, head by head.
class KeysAndValues : public Composite {
 public:
  using Composite::Composite;
  void copy_rows(int64_t begin, int64_t end, DType to, std::byte* out) const override {
    const Tensor& keys = parts()[0];
    const Tensor& values = parts()[1];
    const size_t width = width_of(to);
    const int64_t rank = keys.dims[1];
    const int64_t nope = keys.dims[2];
    const int64_t v = values.dims[1];
    const size_t row = static_cast<size_t>(rank) * width;
    std::vector<std::byte> matrix(static_cast<size_t>(nope) * row);
    std::vector<std::byte> head(static_cast<size_t>(nope + v) * row);
    for (int64_t h = begin / (nope + v); h * (nope + v) < end; ++h) {
      copy_slice(keys, h, to, matrix.data());
      for (int64_t r = 0; r < rank; ++r) {
        scatter(matrix.data() + static_cast<size_t>(r * nope) * width, static_cast<size_t>(nope),
                width, static_cast<size_t>(rank), head.data() + static_cast<size_t>(r) * width);
      }
      copy_slice(values, h, to, head.data() + static_cast<size_t>(nope) * row);
      const int64_t first = std::max(begin, h * (nope + v)) - h * (nope + v);
      const int64_t last = std::min(end, (h + 1) * (nope + v)) - h * (nope + v);
      const size_t bytes = static_cast<size_t>(last - first) * row;
      std::memcpy(out, head.data() + static_cast<size_t>(first) * row, bytes);
      out += bytes;
    }
  }
};

}  // namespace

Tensor gpt_oss_experts(std::string name, std::vector<Tensor> stacks) {
  const Dims dims = stacks.front().dims;
  const bool bias = dims.size() == 2;
  bool fits = (bias || dims.size() == 3) && std::ranges::all_of(dims, [](auto d) { return d > 0; });
  for (const Tensor& stack : stacks) fits = fits && stack.dims == dims;
  require_fit(fits, name, stacks);
  const int64_t outputs = dims[1] * static_cast<int64_t>(stacks.size());
  if (bias) {
    return composed(std::move(name), {dims[0], outputs},
                    std::make_shared<AlternatingVectors>(std::move(stacks)));
  }
  for (Tensor& stack : stacks) {
    const Transform in_blocks{.mxfp4 = true};
    if (stack.transform == in_blocks) stack = mxfp4_matrix(stack);
  }
  return composed(std::move(name), {dims[0], dims[2], outputs},
                  std::make_shared<TransposedStacks>(std::move(stacks)));
}

QuantizedRows QuantizedOutputs::read(int64_t begin, int64_t end) const {
  if (stride == 1) return matrix->read(begin + offset, end + offset);
  QuantizedRows rows = matrix->read(begin * stride + offset, begin * stride + offset);
  for (int64_t i = begin; i < end; ++i) {
    rows.append(matrix->read(i * stride + offset, i * stride + offset + 1));
  }
  return rows;
}

QuantizedOutputs quantized_outputs(const Tensor& experts, int64_t stride, int64_t offset) {
  const auto* stacks = dynamic_cast<const TransposedStacks*>(experts.transform.composite.get());
  if (stacks == nullptr) return {};
  const auto count = static_cast<int64_t>(stacks->parts().size());
  if (stride % count != 0) return {};
  const Tensor& stack = stacks->parts()[static_cast<size_t>(offset % count)];
  return {quantized_of(stack), stride / count, offset / count};
}

Tensor gpt_oss_mxfp4_experts(std::string name, const Tensor& blocks, const Tensor& scales) {
  Dims expected = scales.dims;
  expected.push_back(kMxfp4Elements / 2);
  require_fit(scales.dims.size() == 3 && blocks.dims == expected && scales.dtype == DType::kU8 &&
                  blocks.dtype == DType::kU8 &&
                  std::ranges::all_of(scales.dims, [](auto d) { return d > 0; }),
              name, {blocks, scales});
  const Tensor stack = mxfp4_matrix(name, blocks, scales);
  return gpt_oss_experts(std::move(name), {stack});
}

Tensor deepseek_kv_b(std::string name, const Tensor& k_b, const Tensor& v_b) {
  const bool fits = k_b.dims.size() == 3 && v_b.dims.size() == 3 && k_b.dims[0] > 0 &&
                    k_b.dims[0] == v_b.dims[0] && k_b.dims[1] == v_b.dims[2] && k_b.dims[1] > 0 &&
                    k_b.dims[2] > 0 && v_b.dims[1] > 0;
  require_fit(fits, name, {k_b, v_b});
  return composed(std::move(name), {k_b.dims[0] * (k_b.dims[2] + v_b.dims[1]), k_b.dims[1]},
                  std::make_shared<KeysAndValues>(std::vector{k_b, v_b}));
}

}  // namespace ttpu::io
