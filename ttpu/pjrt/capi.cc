#include "ttpu/pjrt/capi.h"

#include <algorithm>
#include <array>

namespace ttpu::pjrt {
namespace {

struct TypePair {
  DType ours;
  PJRT_Buffer_Type theirs;
};
constexpr std::array<TypePair, 18> kTypes = {{
    {DType::kPred, PJRT_Buffer_Type_PRED},
    {DType::kS4, PJRT_Buffer_Type_S4},
    {DType::kS8, PJRT_Buffer_Type_S8},
    {DType::kS16, PJRT_Buffer_Type_S16},
    {DType::kS32, PJRT_Buffer_Type_S32},
    {DType::kS64, PJRT_Buffer_Type_S64},
    {DType::kU4, PJRT_Buffer_Type_U4},
    {DType::kU8, PJRT_Buffer_Type_U8},
    {DType::kU16, PJRT_Buffer_Type_U16},
    {DType::kU32, PJRT_Buffer_Type_U32},
    {DType::kU64, PJRT_Buffer_Type_U64},
    {DType::kF4E2M1FN, PJRT_Buffer_Type_F4E2M1FN},
    {DType::kF8E4M3FN, PJRT_Buffer_Type_F8E4M3FN},
    {DType::kF8E5M2, PJRT_Buffer_Type_F8E5M2},
    {DType::kBF16, PJRT_Buffer_Type_BF16},
    {DType::kF16, PJRT_Buffer_Type_F16},
    {DType::kF32, PJRT_Buffer_Type_F32},
    {DType::kF64, PJRT_Buffer_Type_F64},
}};

}  // namespace

Error take_error(const PJRT_Api* api, PJRT_Error* error, std::string_view what) {
  TTPU_PJRT_ARGS(PJRT_Error_Message_Args, message);
  message.error = error;
  api->PJRT_Error_Message(&message);
  std::string text(message.message, message.message_size);
  // Places in the plugin's source say nothing to our users.
  text.resize(std::min(text.size(), text.find("\n=== Source Location Trace")));

  TTPU_PJRT_ARGS(PJRT_Error_GetCode_Args, code);
  code.error = error;
  code.code = PJRT_Error_Code_UNKNOWN;
  if (PJRT_Error* second = api->PJRT_Error_GetCode(&code); second != nullptr) {
    TTPU_PJRT_ARGS(PJRT_Error_Destroy_Args, destroy);
    destroy.error = second;
    api->PJRT_Error_Destroy(&destroy);
  }
  TTPU_PJRT_ARGS(PJRT_Error_Destroy_Args, destroy);
  destroy.error = error;
  api->PJRT_Error_Destroy(&destroy);
  return Error(static_cast<Code>(code.code), fmt::format("[{}] {}", what, text));
}

PJRT_Buffer_Type to_buffer_type(DType dtype) {
  for (const TypePair& pair : kTypes) {
    if (pair.ours == dtype) return pair.theirs;
  }
  fail(Code::kUnimplemented, "[pjrt] no PJRT element type for dtype {}", static_cast<int>(dtype));
}

DType from_buffer_type(PJRT_Buffer_Type type) {
  for (const TypePair& pair : kTypes) {
    if (pair.theirs == type) return pair.ours;
  }
  fail(Code::kUnimplemented,
       "[pjrt] the plugin gives an array of PJRT element type {}, unknown here",
       static_cast<int>(type));
}

std::vector<PJRT_NamedValue> to_named_values(const Options& options) {
  std::vector<PJRT_NamedValue> values;
  values.reserve(options.size());
  for (const auto& [name, option] : options) {
    TTPU_PJRT_ARGS(PJRT_NamedValue, value);
    value.name = name.data();
    value.name_size = name.size();
    value.value_size = 1;
    if (const auto* text = std::get_if<std::string>(&option)) {
      value.type = PJRT_NamedValue_kString;
      value.string_value = text->data();
      value.value_size = text->size();
    } else if (const auto* integer = std::get_if<int64_t>(&option)) {
      value.type = PJRT_NamedValue_kInt64;
      value.int64_value = *integer;
    } else if (const auto* boolean = std::get_if<bool>(&option)) {
      value.type = PJRT_NamedValue_kBool;
      value.bool_value = *boolean;
    } else if (const auto* real = std::get_if<float>(&option)) {
      value.type = PJRT_NamedValue_kFloat;
      value.float_value = *real;
    } else {
      const auto& list = std::get<std::vector<int64_t>>(option);
      value.type = PJRT_NamedValue_kInt64List;
      value.int64_array_value = list.data();
      value.value_size = list.size();
    }
    values.push_back(value);
  }
  return values;
}

Options from_named_values(const PJRT_NamedValue* values, size_t count) {
  Options options;
  for (size_t i = 0; i < count; ++i) {
    const PJRT_NamedValue& value = values[i];
    OptionValue& option = options[std::string(value.name, value.name_size)];
    switch (value.type) {
      case PJRT_NamedValue_kString:
        option = std::string(value.string_value, value.value_size);
        break;
      case PJRT_NamedValue_kInt64:
        option = value.int64_value;
        break;
      case PJRT_NamedValue_kInt64List:
        option = std::vector<int64_t>(value.int64_array_value,
                                      value.int64_array_value + value.value_size);
        break;
      case PJRT_NamedValue_kFloat:
        option = value.float_value;
        break;
      case PJRT_NamedValue_kBool:
        option = value.bool_value;
        break;
    }
  }
  return options;
}

std::string option_to_string(const OptionValue& value) {
  if (const auto* text = std::get_if<std::string>(&value)) return *text;
  if (const auto* integer = std::get_if<int64_t>(&value)) return std::to_string(*integer);
  if (const auto* boolean = std::get_if<bool>(&value)) return *boolean ? "true" : "false";
  if (const auto* real = std::get_if<float>(&value)) return fmt::format("{}", *real);
  std::string list;
  for (const int64_t item : std::get<std::vector<int64_t>>(value)) {
    list += fmt::format("{}{}", list.empty() ? "" : ", ", item);
  }
  return "[" + list + "]";
}

RowMajorLayout::RowMajorLayout(size_t rank) : layout_{} {
  require(rank <= minor_to_major_.size(), "[buffer] {} dimensions, at most {}", rank,
          minor_to_major_.size());
  for (size_t i = 0; i < rank; ++i) minor_to_major_[i] = static_cast<int64_t>(rank - 1 - i);
  layout_.struct_size = PJRT_Buffer_MemoryLayout_STRUCT_SIZE;
  layout_.type = PJRT_Buffer_MemoryLayout_Type_Tiled;
  layout_.tiled.struct_size = PJRT_Buffer_MemoryLayout_Tiled_STRUCT_SIZE;
  layout_.tiled.minor_to_major = minor_to_major_.data();
  layout_.tiled.minor_to_major_size = rank;
}

}  // namespace ttpu::pjrt
