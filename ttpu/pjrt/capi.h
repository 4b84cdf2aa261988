// Private to ttpu/pjrt: the C header and what turns its conventions into ours.
#pragma once

#include <array>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include <pjrt_c_api.h>

#include "ttpu/base/dtype.h"
#include "ttpu/base/error.h"
#include "ttpu/pjrt/options.h"

namespace ttpu::pjrt {

// A zeroed argument struct that knows its size. The C header spells the size NAME_STRUCT_SIZE.
#define TTPU_PJRT_ARGS(name, variable) \
  name variable{};                     \
  variable.struct_size = name##_STRUCT_SIZE

// Whether the plugin's function table reaches the field and fills it.
#define TTPU_PJRT_HAS(api, function) \
  ((api)->struct_size >= PJRT_STRUCT_SIZE(PJRT_Api, function) && (api)->function != nullptr)

// Frees the error and returns it as ours: "[what] the plugin's text".
Error take_error(const PJRT_Api* api, PJRT_Error* error, std::string_view what);

inline void check(const PJRT_Api* api, PJRT_Error* error, std::string_view what) {
  if (error != nullptr) throw take_error(api, error, what);
}

// The plugin's element type of `dtype`, and back. from_buffer_type throws kUnimplemented for types
// we do not have (complex, tokens).
PJRT_Buffer_Type to_buffer_type(DType dtype);
DType from_buffer_type(PJRT_Buffer_Type type);

// Options as PJRT wants them; points into the Options given, which must outlive it.
std::vector<PJRT_NamedValue> to_named_values(const Options& options);
Options from_named_values(const PJRT_NamedValue* values, size_t count);

// Dense row-major layout of `rank` dimensions: rank - 1, ..., 0.
class RowMajorLayout {
 public:
  explicit RowMajorLayout(size_t rank);  // throws kInvalidArgument above 16 dimensions
  RowMajorLayout(const RowMajorLayout&) = delete;
  RowMajorLayout& operator=(const RowMajorLayout&) = delete;
  PJRT_Buffer_MemoryLayout* get() { return &layout_; }

 private:
  std::array<int64_t, 16> minor_to_major_{};
  PJRT_Buffer_MemoryLayout layout_;
};

}  // namespace ttpu::pjrt
