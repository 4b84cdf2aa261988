// Reports as JSON: one list of fields serves for writing and for reading.
#pragma once

#include <type_traits>
#include <utility>

#include "ttpu/base/json.h"

namespace ttpu::plan {

// Visitors of (name, field): one puts the field into `json`, the other takes it from `view`.
inline auto json_writer(Json* json) {
  return [json](const char* name, const auto& field) { (*json)[name] = field; };
}
inline auto json_reader(JsonView view) {
  return [view = std::move(view)](const char* name, auto& field) {
    field = view.get<std::remove_reference_t<decltype(field)>>(name);
  };
}

}  // namespace ttpu::plan
