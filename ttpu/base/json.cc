#include "ttpu/base/json.h"

#include <vector>

#include "ttpu/base/file.h"

namespace ttpu {
namespace {

constexpr int kMaxDepth = 256;

// nlohmann's parser recurses only on destruction, but everything that walks the value recurses.
bool too_deep(std::string_view text) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > kMaxDepth) return true;
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return false;
}

template <typename T>
struct Expected;
template <>
struct Expected<bool> {
  static constexpr const char* kName = "true or false";
  static bool matches(const Json& value) { return value.is_boolean(); }
};
template <>
struct Expected<int64_t> {
  static constexpr const char* kName = "an integer";
  static bool matches(const Json& value) {
    return value.is_number_integer() &&
           (!value.is_number_unsigned() || value.get<uint64_t>() <= INT64_MAX);
  }
};
template <>
struct Expected<double> {
  static constexpr const char* kName = "a number";
  static bool matches(const Json& value) { return value.is_number(); }
};
template <>
struct Expected<std::string> {
  static constexpr const char* kName = "a string";
  static bool matches(const Json& value) { return value.is_string(); }
};
template <typename T>
struct Expected<std::vector<T>> {
  static inline const std::string kName = std::string("a list, each item ") + Expected<T>::kName;
  static bool matches(const Json& value) {
    if (!value.is_array()) return false;
    for (const Json& item : value) {
      if (!Expected<T>::matches(item)) return false;
    }
    return true;
  }
};

std::string excerpt(const Json& value) {
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > 80) text = text.substr(0, 77) + "...";
  return text;
}

}  // namespace

Json parse_json(std::string_view text, std::string_view what) {
  if (too_deep(text)) {
    fail(Code::kInvalidArgument, "[json] {} is nested more than {} levels deep", what, kMaxDepth);
  }
  try {
    return Json::parse(text);
  } catch (const nlohmann::json::exception& error) {
    fail(Code::kInvalidArgument,
         "[json] {} is not valid JSON (note that NaN and Infinity are not JSON): {}", what,
         error.what());
  }
}

Json read_json(const std::filesystem::path& path) {
  return parse_json(read_file(path), "'" + path.string() + "'");
}

JsonView::JsonView(const Json& object, std::string what)
    : object_(&object), what_(std::move(what)) {
  if (!object.is_object()) {
    fail(Code::kInvalidArgument, "[json] {} is {}, expected an object", what_, object.type_name());
  }
}

bool JsonView::has(std::string_view key) const {
  const auto found = object_->find(std::string(key));
  return found != object_->end() && !found->is_null();
}

const Json& JsonView::at(std::string_view key) const {
  const auto found = object_->find(std::string(key));
  if (found == object_->end() || found->is_null()) {
    fail(Code::kInvalidArgument, "[json] {} has no field '{}'", what_, key);
  }
  return *found;
}

template <typename T>
T JsonView::get(std::string_view key) const {
  const Json& value = at(key);
  if (!Expected<T>::matches(value)) {
    fail(Code::kInvalidArgument, "[json] field '{}' of {} is {}, expected {}", key, what_,
         excerpt(value), Expected<T>::kName);
  }
  return value.get<T>();
}

template bool JsonView::get(std::string_view) const;
template int64_t JsonView::get(std::string_view) const;
template double JsonView::get(std::string_view) const;
template std::string JsonView::get(std::string_view) const;
template std::vector<int64_t> JsonView::get(std::string_view) const;
template std::vector<double> JsonView::get(std::string_view) const;
template std::vector<std::string> JsonView::get(std::string_view) const;
template std::vector<bool> JsonView::get(std::string_view) const;

JsonView JsonView::child(std::string_view key) const {
  return JsonView(at(key), fmt::format("{}.{}", what_, key));
}

}  // namespace ttpu
