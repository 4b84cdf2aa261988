#include "ttpu/io/gguf.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "ttpu/base/error.h"
#include "ttpu/io/mxfp4.h"

namespace ttpu::io {
namespace {

constexpr uint64_t kMaxKey = 65535;  // the format's own limit
constexpr uint64_t kMaxTensorName = 65535;
constexpr uint32_t kMaxDims = 4;
constexpr int kMaxArrayDepth = 4;
constexpr uint64_t kMaxAlignment = 1 << 20;
constexpr uint64_t kDefaultAlignment = 32;

struct TensorType {
  uint32_t id;
  const char* name;
  Encoding encoding;
  DType dtype;
  bool mxfp4 = false;
};
constexpr std::array kTensorTypes = {
    TensorType{0, "F32", Encoding::kDense, DType::kF32},
    TensorType{1, "F16", Encoding::kDense, DType::kF16},
    TensorType{2, "Q4_0", Encoding::kQ4_0, DType::kF32},
    TensorType{3, "Q4_1", Encoding::kQ4_1, DType::kF32},
    TensorType{6, "Q5_0", Encoding::kQ5_0, DType::kF32},
    TensorType{7, "Q5_1", Encoding::kQ5_1, DType::kF32},
    TensorType{8, "Q8_0", Encoding::kQ8_0, DType::kF32},
    TensorType{10, "Q2_K", Encoding::kQ2_K, DType::kF32},
    TensorType{11, "Q3_K", Encoding::kQ3_K, DType::kF32},
    TensorType{12, "Q4_K", Encoding::kQ4_K, DType::kF32},
    TensorType{13, "Q5_K", Encoding::kQ5_K, DType::kF32},
    TensorType{14, "Q6_K", Encoding::kQ6_K, DType::kF32},
    TensorType{24, "I8", Encoding::kDense, DType::kS8},
    TensorType{25, "I16", Encoding::kDense, DType::kS16},
    TensorType{26, "I32", Encoding::kDense, DType::kS32},
    TensorType{27, "I64", Encoding::kDense, DType::kS64},
    TensorType{28, "F64", Encoding::kDense, DType::kF64},
    TensorType{30, "BF16", Encoding::kDense, DType::kBF16},
    TensorType{39, "MXFP4", Encoding::kDense, DType::kBF16, true},
};

// Types of ggml that are not read here, for a message that names them.
const char* foreign_type_name(uint32_t id) {
  constexpr std::pair<uint32_t, const char*> kForeign[] = {
      {9, "Q8_1"},   {15, "Q8_K"},   {16, "IQ2_XXS"}, {17, "IQ2_XS"}, {18, "IQ3_XXS"},
      {19, "IQ1_S"}, {20, "IQ4_NL"}, {21, "IQ3_S"},   {22, "IQ2_S"},  {23, "IQ4_XS"},
      {29, "IQ1_M"}, {34, "TQ1_0"},  {35, "TQ2_0"},   {40, "NVFP4"},
  };
  for (const auto& [number, name] : kForeign) {
    if (number == id) return name;
  }
  return "an unknown type";
}

size_t scalar_size(GgufType type) {
  switch (type) {
    case GgufType::kU8:
    case GgufType::kI8:
    case GgufType::kBool:
      return 1;
    case GgufType::kU16:
    case GgufType::kI16:
      return 2;
    case GgufType::kU32:
    case GgufType::kI32:
    case GgufType::kF32:
      return 4;
    case GgufType::kU64:
    case GgufType::kI64:
    case GgufType::kF64:
      return 8;
    default:
      return 0;
  }
}

// Reads forward through bytes, never past their end.
class Cursor {
 public:
  Cursor(std::span<const std::byte> bytes, const std::string& what) : bytes_(bytes), what_(what) {}

  std::span<const std::byte> take(uint64_t count, const char* part) {
    if (count > bytes_.size() - at_) {
      fail(Code::kInvalidArgument,
           "[gguf] {} of {} at byte {} needs {} bytes and the file has {} more: it is truncated or "
           "damaged, fetch it again",
           part, what_, at_, count, bytes_.size() - at_);
    }
    const auto result = bytes_.subspan(at_, count);
    at_ += count;
    return result;
  }

  template <typename T>
  T read(const char* part) {
    T value;
    std::memcpy(&value, take(sizeof(T), part).data(), sizeof(T));
    return value;
  }

  std::string_view read_string(uint64_t limit, const char* part) {
    const auto length = read<uint64_t>(part);
    require(length <= limit, "[gguf] {} of {} claims {} bytes, at most {} make sense", part, what_,
            length, limit);
    const auto text = take(length, part);
    return {reinterpret_cast<const char*>(text.data()), text.size()};
  }

  GgufType read_type(const char* part) {
    const auto type = read<uint32_t>(part);
    require(type <= static_cast<uint32_t>(GgufType::kF64),
            "[gguf] {} of {} at byte {} has the unknown value type {}; the file is damaged", part,
            what_, at_ - 4, type);
    return static_cast<GgufType>(type);
  }

  size_t at() const { return at_; }
  size_t left() const { return bytes_.size() - at_; }
  std::span<const std::byte> since(size_t begin) const {
    return bytes_.subspan(begin, at_ - begin);
  }

 private:
  std::span<const std::byte> bytes_;
  const std::string& what_;
  size_t at_ = 0;
};

void skip_items(Cursor& cursor, GgufValue& array, int depth, const std::string& what);

GgufValue read_value(Cursor& cursor, GgufType type, int depth, const std::string& what) {
  GgufValue value;
  value.type = type;
  if (type == GgufType::kString) {
    const std::string_view text = cursor.read_string(UINT64_MAX, "a string");
    value.bytes = std::as_bytes(std::span(text.data(), text.size()));
  } else if (type == GgufType::kArray) {
    require(depth < kMaxArrayDepth, "[gguf] {} has arrays nested more than {} deep", what,
            kMaxArrayDepth);
    value.item = cursor.read_type("an array");
    value.count = cursor.read<uint64_t>("an array");
    const size_t begin = cursor.at();
    skip_items(cursor, value, depth, what);
    value.bytes = cursor.since(begin);
  } else {
    value.bytes = cursor.take(scalar_size(type), "a value");
  }
  return value;
}

void skip_items(Cursor& cursor, GgufValue& array, int depth, const std::string& what) {
  if (const size_t size = scalar_size(array.item); size != 0) {
    uint64_t total = 0;
    require(!__builtin_mul_overflow(array.count, size, &total),
            "[gguf] an array of {} claims {} items", what, array.count);
    cursor.take(total, "an array");
    return;
  }
  // A string takes 8 bytes at least and an array 12: a lying count is found before it costs time.
  require(array.count <= cursor.left() / 8,
          "[gguf] an array of {} claims {} items, more than the rest of the file holds", what,
          array.count);
  for (uint64_t i = 0; i < array.count; ++i) read_value(cursor, array.item, depth + 1, what);
}

uint64_t check_magic(Cursor& cursor, const std::string& what) {
  const auto magic = cursor.take(4, "the magic number");
  require(std::memcmp(magic.data(), "GGUF", 4) == 0,
          "[gguf] {} does not begin with 'GGUF'; this is not a GGUF file", what);
  const auto version = cursor.read<uint32_t>("the version");
  require((version & 0xffffu) != 0 || version == 0,
          "[gguf] {} is big-endian; only little-endian files are read, convert it with "
          "gguf-convert-endian",
          what);
  require(version == 2 || version == 3,
          "[gguf] {} has version {}; versions 2 and 3 are read, convert it with a recent llama.cpp",
          what, version);
  return version;
}

const TensorType& tensor_type(uint32_t id, const std::string& name, const std::string& what) {
  std::string known;
  for (const TensorType& type : kTensorTypes) {
    if (type.id == id) return type;
    known += fmt::format(" {}", type.name);
  }
  fail(Code::kUnimplemented,
       "[gguf] tensor '{}' of {} is stored as {} (type {}), which is not read here; read are:{}. "
       "Take a file of the same model in one of these, Q4_K_M or Q8_0 for example",
       name, what, foreign_type_name(id), id, known);
}

struct TensorInfo {
  Tensor tensor;
  uint64_t offset = 0;
  uint64_t size = 0;
};

// The bytes a tensor takes. `dims` are as stored, innermost first.
uint64_t tensor_bytes(const TensorType& type, std::span<const uint64_t> dims,
                      const std::string& name, const std::string& what) {
  uint64_t elements = 1;
  bool overflow = false;
  for (const uint64_t dim : dims) {
    overflow = overflow || dim > INT64_MAX || __builtin_mul_overflow(elements, dim, &elements) ||
               elements > (uint64_t{1} << 58);
  }
  require(!overflow, "[gguf] tensor '{}' of {} has an impossible shape", name, what);
  if (type.encoding == Encoding::kDense && !type.mxfp4) {
    return elements * static_cast<uint64_t>(bit_width(type.dtype) / 8);
  }
  const auto block =
      static_cast<uint64_t>(type.mxfp4 ? kMxfp4Elements : block_elements(type.encoding));
  const uint64_t row = dims.empty() ? 1 : dims[0];
  require(row % block == 0,
          "[gguf] tensor '{}' of {} has rows of {} values, which are not whole {} blocks of {}",
          name, what, row, type.name, block);
  const int64_t bytes = type.mxfp4 ? kMxfp4GgmlBytes : block_bytes(type.encoding);
  return elements / block * static_cast<uint64_t>(bytes);
}

TensorInfo read_tensor_info(Cursor& cursor, uint64_t alignment, const std::string& what) {
  TensorInfo info;
  info.tensor.name = std::string(cursor.read_string(kMaxTensorName, "a tensor's name"));
  const std::string& name = info.tensor.name;
  const auto rank = cursor.read<uint32_t>("a tensor's rank");
  require(rank <= kMaxDims, "[gguf] tensor '{}' of {} has {} dimensions, at most {} exist", name,
          what, rank, kMaxDims);
  uint64_t dims[kMaxDims] = {};
  for (uint32_t i = 0; i < rank; ++i) dims[i] = cursor.read<uint64_t>("a tensor's shape");
  const TensorType& type = tensor_type(cursor.read<uint32_t>("a tensor's type"), name, what);
  info.offset = cursor.read<uint64_t>("a tensor's offset");
  info.tensor.encoding = type.encoding;
  info.tensor.dtype = type.dtype;
  info.tensor.transform.mxfp4 = type.mxfp4;
  info.size = tensor_bytes(type, {dims, rank}, name, what);
  for (uint32_t i = rank; i > 0; --i) info.tensor.dims.push_back(static_cast<int64_t>(dims[i - 1]));
  require(info.offset % alignment == 0,
          "[gguf] tensor '{}' of {} begins at byte {}, which is not a multiple of {}", name, what,
          info.offset, alignment);
  return info;
}

void check_overlaps(const std::vector<TensorInfo>& infos, const std::string& what) {
  std::vector<const TensorInfo*> order;
  for (const TensorInfo& info : infos) {
    if (info.size > 0) order.push_back(&info);
  }
  std::sort(order.begin(), order.end(),
            [](const auto* a, const auto* b) { return a->offset < b->offset; });
  for (size_t i = 1; i < order.size(); ++i) {
    require(order[i - 1]->offset + order[i - 1]->size <= order[i]->offset,
            "[gguf] tensors '{}' and '{}' of {} overlap; the file is damaged, fetch it again",
            order[i - 1]->tensor.name, order[i]->tensor.name, what);
  }
}

template <typename T>
T value_at(const GgufValue& value, size_t index) {
  T result;
  std::memcpy(&result, value.bytes.data() + index * sizeof(T), sizeof(T));
  return result;
}

std::optional<int64_t> int_at(const GgufValue& value, GgufType type, size_t i) {
  switch (type) {
    case GgufType::kU8:
      return value_at<uint8_t>(value, i);
    case GgufType::kI8:
      return value_at<int8_t>(value, i);
    case GgufType::kU16:
      return value_at<uint16_t>(value, i);
    case GgufType::kI16:
      return value_at<int16_t>(value, i);
    case GgufType::kU32:
      return value_at<uint32_t>(value, i);
    case GgufType::kI32:
      return value_at<int32_t>(value, i);
    case GgufType::kI64:
      return value_at<int64_t>(value, i);
    case GgufType::kBool:
      return value_at<uint8_t>(value, i) != 0;
    case GgufType::kU64: {
      const auto number = value_at<uint64_t>(value, i);
      if (number > INT64_MAX) return std::nullopt;
      return static_cast<int64_t>(number);
    }
    default:
      return std::nullopt;
  }
}

std::optional<double> float_at(const GgufValue& value, GgufType type, size_t i) {
  if (type == GgufType::kF32) return static_cast<double>(value_at<float>(value, i));
  if (type == GgufType::kF64) return value_at<double>(value, i);
  if (const auto number = int_at(value, type, i)) return static_cast<double>(*number);
  return std::nullopt;
}

[[noreturn]] void fail_type(std::string_view key, const std::string& what, const char* expected) {
  fail(Code::kInvalidArgument, "[gguf] metadata '{}' of {} is not {}", key, what, expected);
}

// All items through `read`, which gives nullopt for what does not fit.
template <typename T, typename Read>
std::vector<T> read_list(const GgufValue* value, std::string_view key, const std::string& what,
                         const char* expected, Read read) {
  std::vector<T> items;
  if (value == nullptr) return items;
  const bool list = value->type == GgufType::kArray;
  const uint64_t count = list ? value->count : 1;
  if (scalar_size(list ? value->item : value->type) == 0) {
    if (count == 0) return items;
    fail_type(key, what, expected);
  }
  items.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    const auto item = read(*value, list ? value->item : value->type, i);
    if (!item) fail_type(key, what, expected);
    items.push_back(static_cast<T>(*item));
  }
  return items;
}

template <typename T>
std::optional<T> single(const std::vector<T>& items, bool present, std::string_view key,
                        const std::string& what, const char* expected) {
  if (!present) return std::nullopt;
  if (items.empty()) fail_type(key, what, expected);
  for (const T& item : items) {
    if (item != items[0]) fail_type(key, what, expected);
  }
  return items[0];
}

}  // namespace

Gguf Gguf::parse(std::span<const std::byte> bytes, const std::string& what,
                 const MappedFile* file) {
  Gguf gguf;
  gguf.what_ = what;
  Cursor cursor(bytes, what);
  check_magic(cursor, what);
  const auto tensor_count = cursor.read<uint64_t>("the number of tensors");
  const auto value_count = cursor.read<uint64_t>("the number of metadata entries");
  // An entry takes 13 bytes at least and a tensor 24.
  require(value_count <= bytes.size() / 13 && tensor_count <= bytes.size() / 24,
          "[gguf] {} claims {} tensors and {} metadata entries, more than it has room for: it is "
          "truncated or damaged, fetch it again",
          what, tensor_count, value_count);
  for (uint64_t i = 0; i < value_count; ++i) {
    const std::string_view key = cursor.read_string(kMaxKey, "a metadata key");
    const GgufType type = cursor.read_type("a metadata value");
    const GgufValue value = read_value(cursor, type, 0, what);
    require(gguf.values_.emplace(key, value).second, "[gguf] metadata '{}' comes twice in {}", key,
            what);
    gguf.keys_.push_back(key);
  }
  const auto alignment =
      static_cast<uint64_t>(gguf.get_int("general.alignment").value_or(kDefaultAlignment));
  require(std::has_single_bit(alignment) && alignment <= kMaxAlignment,
          "[gguf] {} has the alignment {}, expected a power of two up to {}", what, alignment,
          kMaxAlignment);
  std::vector<TensorInfo> infos;
  infos.reserve(tensor_count);
  for (uint64_t i = 0; i < tensor_count; ++i) {
    infos.push_back(read_tensor_info(cursor, alignment, what));
  }
  const uint64_t begin =
      std::min<uint64_t>((cursor.at() + alignment - 1) / alignment * alignment, bytes.size());
  const auto data = bytes.subspan(begin);
  check_overlaps(infos, what);
  gguf.tensors_.reserve(infos.size());
  for (TensorInfo& info : infos) {
    require(info.offset <= data.size() && info.size <= data.size() - info.offset,
            "[gguf] tensor '{}' of {} takes bytes {} to {} of the data, and the file has {}: it is "
            "truncated, fetch it again",
            info.tensor.name, what, info.offset, info.offset + info.size, data.size());
    info.tensor.bytes = data.subspan(info.offset, info.size);
    info.tensor.file = file;
    gguf.tensors_.push_back(std::move(info.tensor));
  }
  for (size_t i = 0; i < gguf.tensors_.size(); ++i) {
    require(gguf.tensor_index_.emplace(gguf.tensors_[i].name, i).second,
            "[gguf] tensor '{}' comes twice in {}; the file is damaged, fetch it again",
            gguf.tensors_[i].name, what);
  }
  return gguf;
}

const Tensor* Gguf::find_tensor(std::string_view name) const {
  const auto found = tensor_index_.find(name);
  return found == tensor_index_.end() ? nullptr : &tensors_[found->second];
}

const GgufValue* Gguf::find(std::string_view key) const {
  const auto found = values_.find(key);
  return found == values_.end() ? nullptr : &found->second;
}

std::optional<int64_t> Gguf::get_int(std::string_view key) const {
  return single(get_ints(key), has(key), key, what_, "one integer");
}

std::optional<double> Gguf::get_float(std::string_view key) const {
  const auto items = read_list<double>(find(key), key, what_, "a number", float_at);
  const auto value = single(items, has(key), key, what_, "one number");
  if (value && !std::isfinite(*value)) fail_type(key, what_, "a finite number");
  return value;
}

std::optional<bool> Gguf::get_bool(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (value->type != GgufType::kBool) fail_type(key, what_, "true or false");
  return value_at<uint8_t>(*value, 0) != 0;
}

std::optional<std::string_view> Gguf::get_string(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (value->type != GgufType::kString) fail_type(key, what_, "a string");
  return std::string_view(reinterpret_cast<const char*>(value->bytes.data()), value->bytes.size());
}

std::vector<int64_t> Gguf::get_ints(std::string_view key) const {
  return read_list<int64_t>(find(key), key, what_, "integers", int_at);
}

std::vector<float> Gguf::get_floats(std::string_view key) const {
  return read_list<float>(find(key), key, what_, "numbers", float_at);
}

std::vector<std::string_view> Gguf::get_strings(std::string_view key) const {
  std::vector<std::string_view> items;
  const GgufValue* value = find(key);
  if (value == nullptr) return items;
  if (value->type != GgufType::kArray || value->item != GgufType::kString) {
    fail_type(key, what_, "a list of strings");
  }
  items.reserve(value->count);
  Cursor cursor(value->bytes, what_);
  for (uint64_t i = 0; i < value->count; ++i) {
    items.push_back(cursor.read_string(UINT64_MAX, "a string"));
  }
  return items;
}

std::string_view Gguf::architecture() const {
  const auto name = get_string("general.architecture");
  require(name.has_value(),
          "[gguf] {} has no general.architecture; this is not a model, or it is only one part of "
          "a split file (open the first part)",
          what_);
  return *name;
}

}  // namespace ttpu::io
