// JSON with errors that name the file or object and the field. `Json` keeps the order of fields.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "ttpu/base/error.h"

namespace ttpu {

using Json = nlohmann::ordered_json;

// `what` names the source in errors ("config.json"). Depth is limited to 256. Python's NaN and
// Infinity are refused, with the place. Throws kInvalidArgument.
Json parse_json(std::string_view text, std::string_view what);
Json read_json(const std::filesystem::path& path);

// A view of one object for typed reads: JsonView(config,
// "config.json").get<int64_t>("hidden_size").
class JsonView {
 public:
  // `object` must outlive the view and be a JSON object, else kInvalidArgument.
  JsonView(const Json& object, std::string what);

  bool has(std::string_view key) const;  // present and not null
  // T: bool, int64_t, double, std::string, std::vector of those. Throws when missing or mistyped.
  template <typename T>
  T get(std::string_view key) const;
  template <typename T>
  T get_or(std::string_view key, T fallback) const {
    return has(key) ? get<T>(key) : std::move(fallback);
  }
  template <typename T>
  std::optional<T> get_optional(std::string_view key) const {
    return has(key) ? std::optional<T>(get<T>(key)) : std::nullopt;
  }
  JsonView child(std::string_view key) const;  // throws unless it is an object
  const Json& json() const { return *object_; }
  const std::string& what() const { return what_; }

 private:
  const Json& at(std::string_view key) const;
  const Json* object_;
  std::string what_;
};

}  // namespace ttpu
