#include "ttpu/ir/attribute.h"

#include <algorithm>
#include <cctype>

#include <fmt/ranges.h>

#include "ttpu/base/error.h"

namespace ttpu::ir {
namespace {

std::string float_text(float value) {
  const std::string dense = Literal::splat(Shape(DType::kF32, {}), value).to_string();
  // "dense<1.5> : tensor<f32>" holds the number as MLIR reads it.
  return dense.substr(6, dense.find('>') - 6);
}

std::string array(const char* type, const std::vector<std::string>& items) {
  if (items.empty()) return fmt::format("array<{}>", type);
  return fmt::format("array<{}: {}>", type, fmt::join(items, ", "));
}

std::string array(const Dims& dims) {
  std::vector<std::string> items;
  for (const int64_t dim : dims) items.push_back(fmt::format("{}", dim));
  return array("i64", items);
}

std::string matrix(const IntMatrix& value) {
  std::vector<std::string> rows;
  for (const Dims& row : value.rows) rows.push_back(dims_to_string(row));
  const std::string body = rows.empty() ? "" : fmt::format("[{}]", fmt::join(rows, ", "));
  return fmt::format("dense<{}> : tensor<{}x{}xi64>", body, rows.size(), value.columns);
}

std::string key(const std::string& name) {
  const auto plain = [](unsigned char c) { return std::isalnum(c) || c == '_' || c == '.'; };
  const bool bare = !name.empty() && !std::isdigit(static_cast<unsigned char>(name[0])) &&
                    name[0] != '.' && std::all_of(name.begin(), name.end(), plain);
  return bare ? name : quoted(name);
}

struct Printer {
  std::string operator()(std::monostate) const { return "unit"; }
  std::string operator()(bool value) const { return value ? "true" : "false"; }
  std::string operator()(int64_t value) const { return fmt::format("{} : i64", value); }
  std::string operator()(I32 value) const { return fmt::format("{} : i32", value.value); }
  std::string operator()(float value) const { return float_text(value) + " : f32"; }
  std::string operator()(double value) const { return (*this)(static_cast<float>(value)); }
  std::string operator()(const std::string& value) const { return quoted(value); }
  std::string operator()(const Dims& value) const { return array(value); }
  std::string operator()(const std::vector<bool>& value) const {
    std::vector<std::string> items;
    for (const bool item : value) items.emplace_back(item ? "true" : "false");
    return array("i1", items);
  }
  std::string operator()(const std::vector<std::string>& value) const {
    std::vector<std::string> items;
    for (const std::string& item : value) items.push_back(quoted(item));
    return fmt::format("[{}]", fmt::join(items, ", "));
  }
  std::string operator()(const IntMatrix& value) const { return matrix(value); }
  std::string operator()(const Literal& value) const { return value.to_string(); }
  std::string operator()(ComparisonDirection value) const {
    return fmt::format("#stablehlo<comparison_direction {}>", to_string(value));
  }
  std::string operator()(ComparisonType value) const {
    return fmt::format("#stablehlo<comparison_type {}>", to_string(value));
  }
  std::string operator()(const std::vector<Precision>& value) const {
    std::vector<std::string> items;
    for (const Precision item : value) {
      items.push_back(fmt::format("#stablehlo<precision {}>", to_string(item)));
    }
    return fmt::format("[{}]", fmt::join(items, ", "));
  }
  std::string operator()(RngAlgorithm value) const {
    return fmt::format("#stablehlo<rng_algorithm {}>", to_string(value));
  }
  std::string operator()(Transpose value) const {
    return fmt::format("#stablehlo<transpose {}>", to_string(value));
  }
  std::string operator()(const DotDimensionNumbers& value) const {
    return fmt::format("#stablehlo.dot<{}>",
                       fields({{"lhs_batching_dimensions", value.lhs_batching},
                               {"rhs_batching_dimensions", value.rhs_batching},
                               {"lhs_contracting_dimensions", value.lhs_contracting},
                               {"rhs_contracting_dimensions", value.rhs_contracting}}));
  }
  std::string operator()(const GatherDimensionNumbers& value) const {
    std::string text = fields({{"offset_dims", value.offset_dims},
                               {"collapsed_slice_dims", value.collapsed_slice_dims},
                               {"operand_batching_dims", value.operand_batching_dims},
                               {"start_indices_batching_dims", value.start_indices_batching_dims},
                               {"start_index_map", value.start_index_map}});
    if (!text.empty()) text += ", ";
    return fmt::format("#stablehlo.gather<{}index_vector_dim = {}>", text, value.index_vector_dim);
  }
  std::string operator()(const ScatterDimensionNumbers& value) const {
    std::string text =
        fields({{"update_window_dims", value.update_window_dims},
                {"inserted_window_dims", value.inserted_window_dims},
                {"input_batching_dims", value.input_batching_dims},
                {"scatter_indices_batching_dims", value.scatter_indices_batching_dims},
                {"scatter_dims_to_operand_dims", value.scatter_dims_to_operand_dims}});
    if (!text.empty()) text += ", ";
    return fmt::format("#stablehlo.scatter<{}index_vector_dim = {}>", text, value.index_vector_dim);
  }
  std::string operator()(const ConvolutionDimensionNumbers& value) const {
    return fmt::format(
        "#stablehlo.conv<{}x{}->{}>",
        layout(value.input_spatial, value.input_batch, "b", value.input_feature, "f"),
        layout(value.kernel_spatial, value.kernel_input_feature, "i", value.kernel_output_feature,
               "o"),
        layout(value.output_spatial, value.output_batch, "b", value.output_feature, "f"));
  }
  std::string operator()(const Symbol& value) const { return "@" + key(value.name); }
  std::string operator()(const std::vector<Symbol>& value) const {
    std::vector<std::string> items;
    for (const Symbol& item : value) items.push_back((*this)(item));
    return fmt::format("[{}]", fmt::join(items, ", "));
  }
  std::string operator()(ChannelHandle value) const {
    return fmt::format("#stablehlo.channel_handle<handle = {}, type = {}>", value.handle,
                       value.type);
  }
  std::string operator()(const Sharding& value) const { return value.to_string(); }
  std::string operator()(const std::vector<Sharding>& value) const {
    std::vector<std::string> items;
    for (const Sharding& item : value) items.push_back(item.body_to_string());
    return fmt::format("#sdy.sharding_per_value<[{}]>", fmt::join(items, ", "));
  }
  std::string operator()(const Dictionary& value) const {
    std::vector<std::string> items;
    for (const auto& [name, entry] : value) {
      items.push_back(fmt::format("{} = {}", key(name), std::visit(*this, entry)));
    }
    return fmt::format("{{{}}}", fmt::join(items, ", "));
  }
  std::string operator()(const std::vector<OutputOperandAlias>& value) const {
    std::vector<std::string> items;
    for (const OutputOperandAlias& alias : value) {
      const std::string output =
          alias.output_index ? fmt::format("{}", *alias.output_index) : std::string();
      items.push_back(fmt::format(
          "#stablehlo.output_operand_alias<output_tuple_indices = [{}], operand_index = {}, "
          "operand_tuple_indices = []>",
          output, alias.operand_index));
    }
    return fmt::format("[{}]", fmt::join(items, ", "));
  }
  std::string operator()(const std::vector<Dims>& value) const {
    std::vector<std::string> items;
    for (const Dims& item : value) {
      items.push_back(fmt::format("dense<{}> : tensor<{}xindex>",
                                  item.empty() ? "" : dims_to_string(item), item.size()));
    }
    return fmt::format("[{}]", fmt::join(items, ", "));
  }

 private:
  // `name = [dims]`, the empty ones left out.
  static std::string fields(const std::vector<std::pair<const char*, Dims>>& entries) {
    std::vector<std::string> items;
    for (const auto& [name, dims] : entries) {
      if (!dims.empty()) items.push_back(fmt::format("{} = {}", name, dims_to_string(dims)));
    }
    return fmt::format("{}", fmt::join(items, ", "));
  }

  static std::string layout(const Dims& spatial, int64_t first, const char* first_name,
                            int64_t second, const char* second_name) {
    std::vector<std::string> items(spatial.size() + 2);
    items.at(static_cast<size_t>(first)) = first_name;
    items.at(static_cast<size_t>(second)) = second_name;
    for (size_t i = 0; i < spatial.size(); ++i) {
      items.at(static_cast<size_t>(spatial[i])) = fmt::format("{}", i);
    }
    return fmt::format("[{}]", fmt::join(items, ", "));
  }
};

}  // namespace

const char* to_string(ComparisonDirection value) {
  constexpr const char* kNames[] = {"EQ", "NE", "GE", "GT", "LE", "LT"};
  return kNames[static_cast<size_t>(value)];
}
const char* to_string(ComparisonType value) {
  constexpr const char* kNames[] = {"FLOAT", "TOTALORDER", "SIGNED", "UNSIGNED"};
  return kNames[static_cast<size_t>(value)];
}
const char* to_string(Precision value) {
  constexpr const char* kNames[] = {"DEFAULT", "HIGH", "HIGHEST"};
  return kNames[static_cast<size_t>(value)];
}
const char* to_string(RngAlgorithm value) {
  constexpr const char* kNames[] = {"DEFAULT", "THREE_FRY", "PHILOX"};
  return kNames[static_cast<size_t>(value)];
}
const char* to_string(Transpose value) {
  constexpr const char* kNames[] = {"NO_TRANSPOSE", "TRANSPOSE", "ADJOINT"};
  return kNames[static_cast<size_t>(value)];
}

std::string to_string(const Attribute& attribute) { return std::visit(Printer{}, attribute); }

std::string quoted(std::string_view text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      result += '\\';
      result += c;
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      result += fmt::format("\\{:02X}", static_cast<unsigned char>(c));
    } else {
      result += c;
    }
  }
  return result + '"';
}

void Attributes::set(std::string name, Attribute value) {
  for (auto& [existing, attribute] : entries_) {
    if (existing == name) {
      attribute = std::move(value);
      return;
    }
  }
  entries_.emplace_back(std::move(name), std::move(value));
}

const Attribute* Attributes::find(std::string_view name) const {
  for (const auto& [existing, attribute] : entries_) {
    if (existing == name) return &attribute;
  }
  return nullptr;
}

void Attributes::missing(std::string_view name) {
  fail(Code::kInternal, "[attributes] '{}' is missing or of another type", name);
}

}  // namespace ttpu::ir
