// The fields of a request's JSON object, read by name and type. A field that nobody has asked for
// is an error: what a client wants and does not get, it should know.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ttpu/server/api_error.h"

namespace ttpu::server {

// All reads throw ApiError 400 naming the field. Null is the same as absent.
class Fields {
 public:
  // `object` must outlive this. `path` stands before the names in errors ("stream_options.").
  explicit Fields(const Json& object, std::string path = "");

  const Json* find(std::string_view name);
  std::optional<bool> boolean(std::string_view name);
  std::optional<int64_t> integer(std::string_view name);
  std::optional<double> number(std::string_view name);
  std::optional<std::string> string(std::string_view name);
  std::optional<std::vector<std::string>> strings(std::string_view name);  // or one string
  std::optional<std::vector<int32_t>> tokens(std::string_view name);
  const Json* object(std::string_view name);
  const Json* array(std::string_view name);
  std::optional<Fields> child(std::string_view name);

  // Known, and of no consequence here.
  void ignore(std::initializer_list<std::string_view> names);
  // Known to OpenAI or vLLM and not offered here: an error unless absent or one of `harmless`.
  void refuse(std::string_view name, std::string_view why, const std::vector<Json>& harmless = {});
  // Throws for the first field that none of the above has named.
  void finish() const;

  [[noreturn]] void wrong(std::string_view name, std::string_view what) const;

 private:
  [[noreturn]] void ill_typed(std::string_view name, const Json& value,
                              std::string_view expected) const;

  const Json* object_;
  std::string path_;
  std::vector<std::string> known_;  // copies: a name may be shorter-lived than this
};

// One token id; throws as above.
int32_t token_id(const Json& value, const std::string& where);

}  // namespace ttpu::server
