#include "ttpu/server/fields.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "ttpu/base/edit_distance.h"

namespace ttpu::server {
namespace {

std::string shown(const Json& value) {
  constexpr size_t kMost = 60;
  const std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  return text.size() <= kMost ? text : text.substr(0, kMost) + "...";
}

bool fits(const Json& value) {
  return value.is_number_integer() &&
         (!value.is_number_unsigned() || value.get<uint64_t>() <= INT64_MAX);
}

}  // namespace

int32_t token_id(const Json& value, const std::string& where) {
  if (!fits(value) || value.get<int64_t>() < 0 || value.get<int64_t>() > INT32_MAX) {
    throw ApiError(
        400, fmt::format("`{}` is {}, expected the number of a token", where, shown(value)), where);
  }
  return value.get<int32_t>();
}

Fields::Fields(const Json& object, std::string path) : object_(&object), path_(std::move(path)) {
  if (object.is_object()) return;
  const std::string name = path_.substr(0, path_.empty() ? 0 : path_.size() - 1);
  throw ApiError(400,
                 fmt::format("{} is {}, expected an object",
                             name.empty() ? "the body" : "`" + name + "`", shown(object)),
                 name);
}

void Fields::wrong(std::string_view name, std::string_view what) const {
  throw ApiError(400, fmt::format("`{}{}` {}", path_, name, what),
                 fmt::format("{}{}", path_, name));
}

void Fields::ill_typed(std::string_view name, const Json& value, std::string_view expected) const {
  wrong(name, fmt::format("is {}, expected {}", shown(value), expected));
}

const Json* Fields::find(std::string_view name) {
  known_.emplace_back(name);
  const auto found = object_->find(name);
  return found == object_->end() || found->is_null() ? nullptr : &*found;
}

std::optional<bool> Fields::boolean(std::string_view name) {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_boolean()) ill_typed(name, *value, "true or false");
  return value->get<bool>();
}

std::optional<int64_t> Fields::integer(std::string_view name) {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!fits(*value)) ill_typed(name, *value, "an integer");
  return value->get<int64_t>();
}

std::optional<double> Fields::number(std::string_view name) {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number()) ill_typed(name, *value, "a number");
  return value->get<double>();
}

std::optional<std::string> Fields::string(std::string_view name) {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) ill_typed(name, *value, "a string");
  return value->get<std::string>();
}

std::optional<std::vector<std::string>> Fields::strings(std::string_view name) {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (value->is_string()) return std::vector{value->get<std::string>()};
  const bool all = value->is_array() && std::all_of(value->begin(), value->end(),
                                                    [](const Json& v) { return v.is_string(); });
  if (!all) ill_typed(name, *value, "a string or a list of strings");
  return value->get<std::vector<std::string>>();
}

std::optional<std::vector<int32_t>> Fields::tokens(std::string_view name) {
  const Json* value = array(name);
  if (value == nullptr) return std::nullopt;
  std::vector<int32_t> ids;
  ids.reserve(value->size());
  for (const Json& item : *value) ids.push_back(token_id(item, path_ + std::string(name)));
  return ids;
}

const Json* Fields::object(std::string_view name) {
  const Json* value = find(name);
  if (value != nullptr && !value->is_object()) ill_typed(name, *value, "an object");
  return value;
}

const Json* Fields::array(std::string_view name) {
  const Json* value = find(name);
  if (value != nullptr && !value->is_array()) ill_typed(name, *value, "a list");
  return value;
}

std::optional<Fields> Fields::child(std::string_view name) {
  const Json* value = object(name);
  if (value == nullptr) return std::nullopt;
  return Fields(*value, fmt::format("{}{}.", path_, name));
}

void Fields::ignore(std::initializer_list<std::string_view> names) {
  known_.insert(known_.end(), names.begin(), names.end());
}

void Fields::refuse(std::string_view name, std::string_view why,
                    const std::vector<Json>& harmless) {
  const Json* value = find(name);
  if (value == nullptr) return;
  if (std::find(harmless.begin(), harmless.end(), *value) != harmless.end()) return;
  wrong(name, fmt::format("is {}: {}", shown(*value), why));
}

void Fields::finish() const {
  for (const auto& [name, value] : object_->items()) {
    if (std::find(known_.begin(), known_.end(), name) != known_.end()) continue;
    if (name.size() > 64) throw ApiError(400, "there is no field of that length", path_ + "...");
    const auto distance = [&text = name](const std::string& known) {
      return edit_distance(known, text);
    };
    const auto near =
        std::min_element(known_.begin(), known_.end(),
                         [&](const auto& a, const auto& b) { return distance(a) < distance(b); });
    const bool likely = near != known_.end() && distance(*near) <= 2;
    wrong(name, likely ? fmt::format("is not a field of this request; did you mean `{}`?", *near)
                       : "is not a field of this request");
  }
}

}  // namespace ttpu::server
