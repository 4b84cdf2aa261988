#include "ttpu/io/safetensors.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <set>

#include "ttpu/base/atomic_file.h"
#include "ttpu/base/error.h"
#include "ttpu/base/json.h"

namespace ttpu::io {
namespace {

constexpr uint64_t kMaxHeader = 100'000'000;  // the reference implementation's limit
constexpr int kMaxHeaderDepth = 8;
constexpr size_t kPrefix = 8;

struct Named {
  std::string_view name;
  DType dtype;
};
constexpr std::array kTypes = {
    Named{"F64", DType::kF64},          Named{"F32", DType::kF32},
    Named{"F16", DType::kF16},          Named{"BF16", DType::kBF16},
    Named{"F8_E4M3", DType::kF8E4M3FN}, Named{"F8_E5M2", DType::kF8E5M2},
    Named{"I64", DType::kS64},          Named{"I32", DType::kS32},
    Named{"I16", DType::kS16},          Named{"I8", DType::kS8},
    Named{"U64", DType::kU64},          Named{"U32", DType::kU32},
    Named{"U16", DType::kU16},          Named{"U8", DType::kU8},
    Named{"BOOL", DType::kPred},
};

DType parse_type(const std::string& name, const std::string& tensor, const std::string& what) {
  std::string known;
  for (const Named& type : kTypes) {
    if (type.name == name) return type.dtype;
    known += fmt::format(" {}", type.name);
  }
  fail(Code::kInvalidArgument,
       "[safetensors] tensor '{}' of {} has element type '{}', which is not known here; known "
       "are:{}. Convert the file to one of these",
       tensor, what, name, known);
}

// JSON where no name of a tensor comes twice: a parser would keep either one.
Json parse_header(std::string_view text, const std::string& what) {
  std::set<std::string> names;
  const auto watch = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > kMaxHeaderDepth) {
      fail(Code::kInvalidArgument, "[safetensors] the header of {} is nested too deeply", what);
    }
    if (event == Json::parse_event_t::key && depth == 1 &&
        !names.insert(parsed.get<std::string>()).second) {
      fail(Code::kInvalidArgument,
           "[safetensors] tensor '{}' comes twice in {}; the file is damaged, fetch it again",
           parsed.get<std::string>(), what);
    }
    return true;
  };
  try {
    return Json::parse(text, watch);
  } catch (const nlohmann::json::exception& error) {
    fail(Code::kInvalidArgument,
         "[safetensors] the header of {} is not valid JSON; the file is damaged or not "
         "safetensors at all, fetch it again. {}",
         what, error.what());
  }
}

std::string_view header_text(std::span<const std::byte> bytes, const std::string& what) {
  require(bytes.size() >= kPrefix,
          "[safetensors] {} has {} bytes, too few for a header; the file is truncated, fetch it "
          "again",
          what, bytes.size());
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), kPrefix);
  require(length <= kMaxHeader,
          "[safetensors] {} claims a header of {} bytes; at most {} are allowed, so this is not a "
          "safetensors file or it is damaged",
          what, length, kMaxHeader);
  require(length <= bytes.size() - kPrefix,
          "[safetensors] {} claims a header of {} bytes and has {} in all; the file is truncated, "
          "fetch it again",
          what, length, bytes.size());
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + kPrefix, length);
  require(!text.empty() && text.front() == '{',
          "[safetensors] the header of {} does not begin with '{{'; this is not a safetensors file",
          what);
  return text;
}

// Bytes that a tensor of this shape takes, or an error when they do not fit 63 bits.
uint64_t shape_bytes(const Dims& dims, DType dtype, const std::string& name,
                     const std::string& what) {
  uint64_t total = static_cast<uint64_t>(bit_width(dtype) / 8);
  bool overflow = false;
  bool empty = false;
  for (const int64_t dim : dims) {
    require(dim >= 0, "[safetensors] tensor '{}' of {} has a negative dimension in {}", name, what,
            dims_to_string(dims));
    empty = empty || dim == 0;
    overflow = overflow || __builtin_mul_overflow(total, static_cast<uint64_t>(dim), &total) ||
               total > INT64_MAX;
  }
  if (empty) return 0;
  require(!overflow, "[safetensors] tensor '{}' of {} has the impossible shape {}", name, what,
          dims_to_string(dims));
  return total;
}

struct Span {
  uint64_t begin;
  uint64_t end;
};

Span data_offsets(const JsonView& entry, const std::string& name, const std::string& what) {
  const auto offsets = entry.get<std::vector<int64_t>>("data_offsets");
  require(offsets.size() == 2 && offsets[0] >= 0 && offsets[0] <= offsets[1],
          "[safetensors] tensor '{}' of {} has data_offsets that are not [begin, end]", name, what);
  return {static_cast<uint64_t>(offsets[0]), static_cast<uint64_t>(offsets[1])};
}

void check_layout(const std::vector<std::pair<Span, size_t>>& order,
                  const std::vector<Tensor>& tensors, uint64_t data_size, const std::string& what) {
  uint64_t at = 0;
  for (const auto& [span, index] : order) {
    require(span.begin == at,
            "[safetensors] the data of tensor '{}' in {} begins at byte {}, expected {}: tensors "
            "overlap or leave a gap, the file is damaged",
            tensors[index].name, what, span.begin, at);
    at = span.end;
  }
  require(at == data_size,
          "[safetensors] the tensors of {} take {} bytes, the file holds {}: it is truncated or "
          "has bytes that belong to nothing; fetch it again",
          what, at, data_size);
}

}  // namespace

std::string_view safetensors_dtype(DType dtype) {
  for (const Named& type : kTypes) {
    if (type.dtype == dtype) return type.name;
  }
  fail(Code::kInvalidArgument, "[safetensors] the format has no element type {}",
       dtype_name(dtype));
}

Safetensors parse_safetensors(std::span<const std::byte> bytes, const std::string& what,
                              const MappedFile* file) {
  const std::string_view text = header_text(bytes, what);
  const Json header = parse_header(text, what);
  const std::span<const std::byte> data = bytes.subspan(kPrefix + text.size());
  Safetensors result;
  std::vector<std::pair<Span, size_t>> order;
  for (const auto& [name, value] : header.items()) {
    const JsonView entry(value, fmt::format("tensor '{}' of {}", name, what));
    if (name == "__metadata__") {
      for (const auto& item : value.items()) {
        result.metadata[item.key()] = entry.get<std::string>(item.key());
      }
      continue;
    }
    Tensor tensor;
    tensor.name = name;
    tensor.dtype = parse_type(entry.get<std::string>("dtype"), name, what);
    tensor.dims = entry.get<Dims>("shape");
    tensor.file = file;
    const Span span = data_offsets(entry, name, what);
    require(span.end <= data.size(),
            "[safetensors] tensor '{}' of {} ends at byte {} of {}: the file is truncated, fetch "
            "it again",
            name, what, span.end, data.size());
    const uint64_t expected = shape_bytes(tensor.dims, tensor.dtype, name, what);
    require(expected == span.end - span.begin,
            "[safetensors] tensor '{}' of {} has shape {} of {}, which takes {} bytes, and offsets "
            "for {}",
            name, what, dims_to_string(tensor.dims), dtype_name(tensor.dtype), expected,
            span.end - span.begin);
    tensor.bytes = data.subspan(span.begin, span.end - span.begin);
    order.emplace_back(span, result.tensors.size());
    result.tensors.push_back(std::move(tensor));
  }
  std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return std::pair(a.first.begin, a.first.end) < std::pair(b.first.begin, b.first.end);
  });
  check_layout(order, result.tensors, data.size(), what);
  std::vector<Tensor> sorted;
  sorted.reserve(order.size());
  for (const auto& [span, index] : order) sorted.push_back(std::move(result.tensors[index]));
  result.tensors = std::move(sorted);
  return result;
}

Safetensors read_safetensors(const MappedFile& file) {
  return parse_safetensors(file.bytes(), "'" + file.path().string() + "'", &file);
}

void write_safetensors(const std::filesystem::path& path, std::span<const Tensor> tensors,
                       const std::map<std::string, std::string>& metadata) {
  const std::string what = "'" + path.string() + "'";
  Json header = Json::object();
  if (!metadata.empty()) {
    for (const auto& [key, value] : metadata) header["__metadata__"][key] = value;
  }
  uint64_t at = 0;
  for (const Tensor& tensor : tensors) {
    require(tensor.encoding == Encoding::kDense && tensor.transform == Transform{},
            "[safetensors] tensor '{}' is stored as {}; copy it out before writing it", tensor.name,
            encoding_name(tensor.encoding));
    require(tensor.name != "__metadata__" && !header.contains(tensor.name),
            "[safetensors] two tensors are named '{}'", tensor.name);
    const uint64_t size = shape_bytes(tensor.dims, tensor.dtype, tensor.name, what);
    require(size == tensor.bytes.size(),
            "[safetensors] tensor '{}' of shape {} takes {} bytes and comes with {}", tensor.name,
            dims_to_string(tensor.dims), size, tensor.bytes.size());
    header[tensor.name] = {{"dtype", safetensors_dtype(tensor.dtype)},
                           {"shape", tensor.dims},
                           {"data_offsets", {at, at + size}}};
    at += size;
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const nlohmann::json::exception& error) {
    fail(Code::kInvalidArgument, "[safetensors] a name or metadata is not UTF-8: {}", error.what());
  }
  text.resize((text.size() + 7) / 8 * 8, ' ');  // data is aligned to 8 bytes
  const uint64_t length = text.size();
  AtomicFile file(path);
  file.write(std::as_bytes(std::span(&length, 1)));
  file.write(std::as_bytes(std::span(text.data(), text.size())));
  for (const Tensor& tensor : tensors) file.write(tensor.bytes);
  file.commit();
}

}  // namespace ttpu::io
