// The attributes of operators, as data.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "ttpu/ir/literal.h"
#include "ttpu/ir/sharding.h"

namespace ttpu::ir {

enum class ComparisonDirection { kEq, kNe, kGe, kGt, kLe, kLt };
enum class ComparisonType { kFloat, kTotalOrder, kSigned, kUnsigned };
enum class Precision { kDefault, kHigh, kHighest };
enum class RngAlgorithm { kDefault, kThreeFry, kPhilox };
enum class Transpose { kNoTranspose, kTranspose, kAdjoint };

struct DotDimensionNumbers {
  Dims lhs_batching = {};
  Dims rhs_batching = {};
  Dims lhs_contracting = {};
  Dims rhs_contracting = {};
  bool operator==(const DotDimensionNumbers&) const = default;
};

struct GatherDimensionNumbers {
  Dims offset_dims = {};
  Dims collapsed_slice_dims = {};
  Dims operand_batching_dims = {};
  Dims start_indices_batching_dims = {};
  Dims start_index_map = {};
  int64_t index_vector_dim = 0;
  bool operator==(const GatherDimensionNumbers&) const = default;
};

struct ScatterDimensionNumbers {
  Dims update_window_dims = {};
  Dims inserted_window_dims = {};
  Dims input_batching_dims = {};
  Dims scatter_indices_batching_dims = {};
  Dims scatter_dims_to_operand_dims = {};
  int64_t index_vector_dim = 0;
  bool operator==(const ScatterDimensionNumbers&) const = default;
};

struct ConvolutionDimensionNumbers {
  int64_t input_batch = 0;
  int64_t input_feature = 1;
  Dims input_spatial = {};
  int64_t kernel_output_feature = 0;
  int64_t kernel_input_feature = 1;
  Dims kernel_spatial = {};
  int64_t output_batch = 0;
  int64_t output_feature = 1;
  Dims output_spatial = {};
  bool operator==(const ConvolutionDimensionNumbers&) const = default;
};

// Rows of equal length: replica groups, source-target pairs, (low, high) paddings.
struct IntMatrix {
  int64_t columns = 0;
  std::vector<Dims> rows = {};
  bool operator==(const IntMatrix&) const = default;
};

struct I32 {
  int32_t value = 0;
  bool operator==(const I32&) const = default;
};
struct Symbol {
  std::string name;  // "@name"
  bool operator==(const Symbol&) const = default;
};
struct ChannelHandle {
  int64_t handle = 0;
  int64_t type = 1;
  bool operator==(const ChannelHandle&) const = default;
};

// The typed entries of a custom call's backend_config and of other dictionaries.
using DictionaryValue = std::variant<bool, int64_t, I32, float, std::string, Dims>;
using Dictionary = std::vector<std::pair<std::string, DictionaryValue>>;

// Output `output_index` (when there are several) is operand `operand_index`, updated in place.
struct OutputOperandAlias {
  std::optional<int64_t> output_index;
  int64_t operand_index = 0;
  bool operator==(const OutputOperandAlias&) const = default;
};

using Attribute =
    std::variant<std::monostate /* unit */, bool, int64_t, I32, double, std::string, Dims,
                 std::vector<bool>, std::vector<std::string>, IntMatrix, Literal,
                 ComparisonDirection, ComparisonType, std::vector<Precision>, RngAlgorithm,
                 Transpose, DotDimensionNumbers, GatherDimensionNumbers, ScatterDimensionNumbers,
                 ConvolutionDimensionNumbers, Symbol, std::vector<Symbol>, ChannelHandle, Sharding,
                 std::vector<Sharding>, Dictionary, std::vector<OutputOperandAlias>,
                 std::vector<Dims> /* layouts */>;

// "EQ", "SIGNED", "HIGHEST", "THREE_FRY", "NO_TRANSPOSE"
const char* to_string(ComparisonDirection value);
const char* to_string(ComparisonType value);
const char* to_string(Precision value);
const char* to_string(RngAlgorithm value);
const char* to_string(Transpose value);
// As StableHLO text in the generic form.
std::string to_string(const Attribute& attribute);
// `"text"`, escaped as MLIR reads it.
std::string quoted(std::string_view text);

// Ordered names and attributes.
class Attributes {
 public:
  using Entry = std::pair<std::string, Attribute>;
  Attributes() = default;
  Attributes(std::initializer_list<Entry> entries) : entries_(entries) {}

  void set(std::string name, Attribute value);
  const Attribute* find(std::string_view name) const;
  bool has(std::string_view name) const { return find(name) != nullptr; }
  // Throws kInternal when the name is missing or of another type.
  template <typename T>
  const T& get(std::string_view name) const {
    const T* value = get_if<T>(name);
    if (value == nullptr) missing(name);
    return *value;
  }
  template <typename T>
  const T* get_if(std::string_view name) const {
    const Attribute* attribute = find(name);
    return attribute == nullptr ? nullptr : std::get_if<T>(attribute);
  }
  bool empty() const { return entries_.empty(); }
  auto begin() const { return entries_.begin(); }
  auto end() const { return entries_.end(); }
  bool operator==(const Attributes&) const = default;

 private:
  [[noreturn]] static void missing(std::string_view name);
  std::vector<Entry> entries_;
};

}  // namespace ttpu::ir
