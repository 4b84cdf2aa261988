#include "ttpu/io/quantized_checkpoint.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <set>

#include "ttpu/base/error.h"
#include "ttpu/io/quantized_matrix.h"

namespace ttpu::io {
namespace {

template <typename T>
T load(const std::byte* base, int64_t index) {
  T value;
  std::memcpy(&value, base + index * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return value;
}

float load_number(const Tensor& tensor, int64_t index) {
  switch (tensor.dtype) {
    case DType::kF32:
      return load<float>(tensor.bytes.data(), index);
    case DType::kBF16:
      return f32_from_bf16(load<uint16_t>(tensor.bytes.data(), index));
    case DType::kF16:
      return fast_f32_from_f16(load<uint16_t>(tensor.bytes.data(), index));
    default:
      fail(Code::kInvalidArgument, "[checkpoint] scales '{}' are {}, expected f32, bf16 or f16",
           tensor.name, dtype_name(tensor.dtype));
  }
}

// AWQ's place in a word of each of eight neighbours.
constexpr int kAwqOrder[] = {0, 4, 1, 5, 2, 6, 3, 7};

// Where the small integers of an array [rows, columns] lie.
struct IntLayout {
  int bits = 8;
  bool words = false;  // several in one of 32 bits, else one a byte
  int64_t row_step = 0, column_step = 0;
  int64_t rows_in_word = 1, columns_in_word = 1;
  const int* order = nullptr;  // of neighbours in a word
  int offset = 0;              // taken away, so that they are signed

  int get(const std::byte* base, int64_t row, int64_t column) const {
    if (!words) return load<int8_t>(base, row * row_step + column * column_step);
    const auto word = load<uint32_t>(
        base, row / rows_in_word * row_step + column / columns_in_word * column_step);
    const int64_t lane = rows_in_word > 1 ? row % rows_in_word : column % columns_in_word;
    const int place = order == nullptr ? static_cast<int>(lane) : order[lane];
    return static_cast<int>(word >> (place * bits) & ((1U << bits) - 1)) - offset;
  }
};

// Where the scales of an array [rows, columns] lie: each of a block of it.
struct ScaleLayout {
  int64_t block_rows = 1, block_columns = 1;
  int64_t row_step = 0, column_step = 0;

  int64_t index(int64_t row, int64_t column) const {
    return row / block_rows * row_step + column / block_columns * column_step;
  }
};

struct Layout {
  int64_t rows = 0, columns = 0;
  IntLayout values;
  ScaleLayout scales;
  IntLayout zero_points;  // [rows, groups as they are stored]
  int zero_point_bias = 0;
};

// parts(): values, scales, and zero points if there are any.
class StoredMatrix : public QuantizedMatrix {
 public:
  StoredMatrix(std::vector<Tensor> parts, const Layout& layout, const Quantization& quantization)
      : QuantizedMatrix(std::move(parts), layout.columns, quantization), layout_(layout) {}

  QuantizedRows read(int64_t begin, int64_t end) const override {
    QuantizedRows rows;
    rows.rows = end - begin;
    rows.columns = layout_.columns;
    const int64_t group = quantization().group == 0 ? layout_.columns : quantization().group;
    rows.groups = layout_.columns / group;
    read_values(begin, rows);
    for (int64_t r = begin; r < end; ++r) {
      for (int64_t g = 0; g < rows.groups; ++g) {
        rows.scales.push_back(load_number(parts()[1], layout_.scales.index(r, g * group)));
        if (quantization().zero_points) rows.zero_points.push_back(zero_point(r, g * group));
      }
    }
    return rows;
  }

  float zero_point(int64_t row, int64_t column) const {
    const int64_t stored_group = column / layout_.scales.block_columns;
    return static_cast<float>(layout_.zero_points.get(parts()[2].bytes.data(), row, stored_group) +
                              layout_.zero_point_bias);
  }

 private:
  // In the order in which they lie: rows may be far from each other, or columns.
  void read_values(int64_t begin, QuantizedRows& rows) const {
    rows.values.resize(static_cast<size_t>(rows.rows * rows.columns));
    const std::byte* base = parts()[0].bytes.data();
    const auto take = [&](int64_t r, int64_t c) {
      rows.values[static_cast<size_t>(r * rows.columns + c)] =
          static_cast<int8_t>(layout_.values.get(base, begin + r, c));
    };
    if (!layout_.values.words) {
      std::memcpy(rows.values.data(), base + begin * rows.columns, rows.values.size());
    } else if (layout_.values.row_step > layout_.values.column_step) {
      for (int64_t r = 0; r < rows.rows; ++r) {
        for (int64_t c = 0; c < rows.columns; ++c) take(r, c);
      }
    } else {
      for (int64_t c = 0; c < rows.columns; ++c) {
        for (int64_t r = 0; r < rows.rows; ++r) take(r, c);
      }
    }
  }

  Layout layout_;
};

// The tensors of one module, by the last part of their names.
using Parts = std::map<std::string, Tensor>;

const Tensor& part(const Parts& parts, const std::string& module, const std::string& name) {
  const auto found = parts.find(name);
  if (found == parts.end()) {
    fail(Code::kInvalidArgument,
         "[checkpoint] '{}' is quantized, and its tensor '{}.{}' is missing; fetch the files again",
         module, module, name);
  }
  return found->second;
}

void require_dims(const Tensor& tensor, const Dims& dims, const std::string& module) {
  require(
      tensor.dims == dims,
      "[checkpoint] '{}' is {}, expected {} beside the other tensors of '{}'; the files are not "
      "of one model or config.json's quantization_config is another's",
      tensor.name, dims_to_string(tensor.dims), dims_to_string(dims), module);
}

void require_matrix(const Tensor& tensor, DType dtype) {
  require(
      tensor.dims.size() == 2 && tensor.dims[0] > 0 && tensor.dims[1] > 0 && tensor.dtype == dtype,
      "[checkpoint] '{}' is {} of {}, expected a matrix of {}", tensor.name,
      dims_to_string(tensor.dims), dtype_name(tensor.dtype), dtype_name(dtype));
}

// The columns of a scale, where `groups` of them make a row.
int64_t group_of(const Tensor& scales, int64_t columns, int64_t groups) {
  require(groups > 0 && columns % groups == 0,
          "[checkpoint] '{}' has scales for {} groups, which do not divide {} columns", scales.name,
          groups, columns);
  return columns / groups;
}

// Of columns in their own order.
void require_in_order(const Parts& parts, const char* name, int64_t group) {
  const auto found = parts.find(name);
  if (found == parts.end()) return;
  const Tensor& index = found->second;
  require(index.dtype == DType::kS32 && index.bytes.size() % 4 == 0,
          "[checkpoint] '{}' is of {}, expected i32", index.name, dtype_name(index.dtype));
  for (int64_t i = 0; i < index.num_elements(); ++i) {
    if (load<int32_t>(index.bytes.data(), i) == i / group) continue;
    fail(Code::kUnimplemented,
         "[checkpoint] the columns of '{}' were reordered when it was quantized (desc_act, or "
         "actorder \"group\"), which is not read; take a checkpoint with desc_act=False",
         index.name);
  }
}

Tensor finish(const std::string& module, std::vector<Tensor> parts, const Layout& layout,
              const QuantScheme& scheme, DType dtype) {
  const int64_t group = layout.scales.column_step == 0
                            ? layout.columns
                            : fitting_group(layout.scales.block_columns, layout.columns);
  const bool rows = group == layout.columns && scheme.symmetric;
  Quantization form;
  form.dtype = dtype;
  form.group = rows ? 0 : group;
  form.zero_points = !scheme.symmetric;
  form.activations = scheme.activations && rows;
  form.scales = rows ? DType::kF32 : parts[1].dtype;
  form.rows = rows ? 1 : fitting_rows(layout.scales.block_rows, layout.rows);
  Tensor tensor;
  tensor.name = module + ".weight";
  tensor.dtype = DType::kF32;
  tensor.dims = {layout.rows, layout.columns};
  tensor.file = parts[0].file;
  const bool given = parts.size() > 2;
  const auto matrix = std::make_shared<StoredMatrix>(std::move(parts), layout, form);
  if (scheme.symmetric && given) {  // AWQ and GPTQ write them all the same
    for (int64_t r = 0; r < layout.rows; ++r) {
      for (int64_t c = 0; c < layout.columns; c += group) {
        require(matrix->zero_point(r, c) == 0,
                "[checkpoint] '{}' has zero points, and config.json's quantization_config says "
                "that it has none (sym, zero_point)",
                module);
      }
    }
  }
  tensor.transform.composite = matrix;
  return tensor;
}

// Of scales [groups, out] beside weights [in, out]; `words` are those of the zero points of a
// group.
ScaleLayout scales_by_group(const Tensor& scales, const Tensor& zeros, int64_t words,
                            const Layout& layout, const std::string& module) {
  const int64_t groups = scales.dims.empty() ? 0 : scales.dims[0];
  require_dims(scales, {groups, layout.rows}, module);
  require_dims(zeros, {groups, words}, module);
  return {1, group_of(scales, layout.columns, groups), 1, layout.rows};
}

// qweight [in, out / 8], qzeros [groups, out / 8], scales [groups, out].
Tensor read_awq(const std::string& module, const Parts& parts, const QuantScheme& scheme) {
  constexpr int64_t kInWord = 8;
  const Tensor& values = part(parts, module, "qweight");
  const Tensor& scales = part(parts, module, "scales");
  const Tensor& zeros = part(parts, module, "qzeros");
  require_matrix(values, DType::kS32);
  Layout layout;
  layout.columns = values.dims[0];
  layout.rows = values.dims[1] * kInWord;
  layout.scales = scales_by_group(scales, zeros, values.dims[1], layout, module);
  layout.values = {4, true, 1, values.dims[1], kInWord, 1, kAwqOrder, 8};
  layout.zero_points = layout.values;
  return finish(module, {values, scales, zeros}, layout, scheme, DType::kS4);
}

// qweight [in * bits / 32, out], qzeros [groups, out * bits / 32], scales [groups, out].
Tensor read_gptq(const std::string& module, const Parts& parts, const QuantScheme& scheme,
                 int zero_point_bias) {
  const int64_t in_word = 32 / scheme.bits;
  const Tensor& values = part(parts, module, "qweight");
  const Tensor& scales = part(parts, module, "scales");
  const Tensor& zeros = part(parts, module, "qzeros");
  require_matrix(values, DType::kS32);
  Layout layout;
  layout.columns = values.dims[0] * in_word;
  layout.rows = values.dims[1];
  layout.scales = scales_by_group(scales, zeros, layout.rows / in_word, layout, module);
  require_in_order(parts, "g_idx", layout.scales.block_columns);
  const int offset = 1 << (scheme.bits - 1);
  layout.values = {scheme.bits, true, 1, layout.rows, 1, in_word, nullptr, offset};
  layout.zero_points = {scheme.bits, true, 1, zeros.dims[1], in_word, 1, nullptr, offset};
  layout.zero_point_bias = zero_point_bias;
  return finish(module, {values, scales, zeros}, layout, scheme,
                scheme.bits == 4 ? DType::kS4 : DType::kS8);
}

// One number, one a row [out, 1], one a group of columns [out, groups] or one a block.
ScaleLayout scales_beside(const Tensor& scales, const Layout& layout, const QuantScheme& scheme,
                          const std::string& module) {
  if (scales.num_elements() == 1) return {};
  if (scales.dims == Dims{layout.rows}) return {1, 1, 1, 0};
  require(scales.dims.size() == 2, "[checkpoint] scales '{}' are {}, expected a matrix",
          scales.name, dims_to_string(scales.dims));
  if (scheme.block_rows > 1) {
    const auto blocks = [](int64_t size, int64_t block) { return (size + block - 1) / block; };
    require_dims(scales,
                 {blocks(layout.rows, scheme.block_rows), blocks(layout.columns, scheme.group)},
                 module);
    return {scheme.block_rows, scheme.group, scales.dims[1], 1};
  }
  require_dims(scales, {layout.rows, scales.dims[1]}, module);
  const int64_t groups = scales.dims[1];
  return {1, group_of(scales, layout.columns, groups), groups, groups == 1 ? 0 : 1};
}

// weight_packed [out, in * bits / 32], weight_zero_point [out * bits / 32, groups].
Tensor read_packed(const std::string& module, const Parts& parts, const QuantScheme& scheme) {
  const int64_t in_word = 32 / scheme.bits;
  const Tensor& values = part(parts, module, "weight_packed");
  const Tensor& scales = part(parts, module, "weight_scale");
  require_matrix(values, DType::kS32);
  Layout layout;
  layout.rows = values.dims[0];
  layout.columns = values.dims[1] * in_word;
  if (const auto shape = parts.find("weight_shape"); shape != parts.end()) {
    const Tensor& given = shape->second;
    const bool wide = given.dtype == DType::kS64;
    require(given.num_elements() == 2 && (wide || given.dtype == DType::kS32),
            "[checkpoint] '{}' is no pair of integers", given.name);
    layout.columns =
        wide ? load<int64_t>(given.bytes.data(), 1) : int64_t{load<int32_t>(given.bytes.data(), 1)};
    require((layout.columns + in_word - 1) / in_word == values.dims[1] && layout.columns > 0,
            "[checkpoint] '{}' says {} columns, '{}' has words for {}", given.name, layout.columns,
            values.name, values.dims[1] * in_word);
  }
  const int offset = 1 << (scheme.bits - 1);
  layout.values = {scheme.bits, true, values.dims[1], 1, 1, in_word, nullptr, offset};
  layout.scales = scales_beside(scales, layout, scheme, module);
  require_in_order(parts, "weight_g_idx", layout.scales.block_columns);
  std::vector<Tensor> used = {values, scales};
  if (!scheme.symmetric) {
    const Tensor& zeros = part(parts, module, "weight_zero_point");
    const int64_t groups = scales.dims.size() == 2 ? scales.dims[1] : 1;
    require_dims(zeros, {(layout.rows + in_word - 1) / in_word, groups}, module);
    layout.zero_points = {scheme.bits, true, groups, 1, in_word, 1, nullptr, offset};
    used.push_back(zeros);
  }
  return finish(module, std::move(used), layout, scheme,
                scheme.bits == 4 ? DType::kS4 : DType::kS8);
}

// weight [out, in] of bytes.
Tensor read_bytes(const std::string& module, const Parts& parts, const QuantScheme& scheme) {
  const Tensor& values = part(parts, module, "weight");
  const Tensor& scales =
      part(parts, module, parts.contains("weight_scale_inv") ? "weight_scale_inv" : "weight_scale");
  const DType dtype = scheme.floats ? DType::kF8E4M3FN : DType::kS8;
  require_matrix(values, dtype);
  Layout layout;
  layout.rows = values.dims[0];
  layout.columns = values.dims[1];
  layout.values = {8, false, layout.columns, 1};
  layout.scales = scales_beside(scales, layout, scheme, module);
  std::vector<Tensor> used = {values, scales};
  if (!scheme.symmetric) {
    const Tensor& zeros = part(parts, module, "weight_zero_point");
    require(zeros.dtype == DType::kS8 && zeros.dims == scales.dims,
            "[checkpoint] '{}' is {} of {}, expected i8 for each scale", zeros.name,
            dims_to_string(zeros.dims), dtype_name(zeros.dtype));
    layout.zero_points = {8, false, layout.scales.row_step, layout.scales.column_step};
    used.push_back(zeros);
  }
  return finish(module, std::move(used), layout, scheme, dtype);
}

const std::set<std::string, std::less<>>& parts_of_modules() {
  static const std::set<std::string, std::less<>> kParts = {
      "qweight",       "qzeros",          "scales",       "g_idx",
      "weight_packed", "weight_scale",    "weight_shape", "weight_zero_point",
      "weight_g_idx",  "weight_scale_inv"};
  return kParts;
}

// Of activations and caches.
bool is_other_scale(std::string_view part) {
  return part == "input_scale" || part == "input_zero_point" || part == "output_scale" ||
         part == "activation_scale" || part == "k_scale" || part == "v_scale" || part == "q_scale";
}

Tensor read_module(const std::string& module, const Parts& parts,
                   const QuantizationConfig& config) {
  const QuantScheme* scheme = config.scheme_of(module);
  require(scheme != nullptr,
          "[checkpoint] '{}' is quantized, and config.json's quantization_config leaves it out",
          module);
  if (config.method == QuantMethod::kAwq) return read_awq(module, parts, *scheme);
  if (config.method == QuantMethod::kGptq) {
    return read_gptq(module, parts, *scheme, config.zero_point_bias);
  }
  if (parts.contains("weight_packed")) return read_packed(module, parts, *scheme);
  return read_bytes(module, parts, *scheme);
}

}  // namespace

std::vector<Tensor> join_quantized(std::vector<Tensor> tensors, const QuantizationConfig& config) {
  std::map<std::string, Parts> modules;
  const auto split = [](const std::string& name) {
    const size_t dot = name.rfind('.');
    if (dot == std::string::npos) return std::pair(std::string(), name);
    return std::pair(name.substr(0, dot), name.substr(dot + 1));
  };
  for (const Tensor& tensor : tensors) {
    const auto [module, last] = split(tensor.name);
    if (parts_of_modules().contains(last)) modules[module].emplace(last, tensor);
  }
  std::vector<Tensor> result;
  for (Tensor& tensor : tensors) {
    const auto [module, last] = split(tensor.name);
    const auto found = modules.find(module);
    if (last == "weight" && found != modules.end()) {
      found->second.emplace(last, std::move(tensor));
    } else if (!parts_of_modules().contains(last) && !is_other_scale(last)) {
      result.push_back(std::move(tensor));
    }
  }
  for (const auto& [module, parts] : modules) {
    result.push_back(read_module(module, parts, config));
  }
  return result;
}

}  // namespace ttpu::io
