#include "ttpu/ir/custom_call.h"

#include "ttpu/ir/function.h"
#include "ttpu/ir/infer.h"

namespace ttpu::ir {
namespace {

template <typename T>
Attribute as_attribute(const T& value) {
  return value;
}
Attribute as_attribute(float value) { return static_cast<double>(value); }

void check_layouts(const OpContext& op, const std::vector<Dims>& layouts,
                   const std::vector<Shape>& shapes, const char* what) {
  check(layouts.size() == shapes.size(), op, "{} layouts for {} {}s", layouts.size(), shapes.size(),
        what);
  for (size_t i = 0; i < layouts.size(); ++i) {
    check(static_cast<int>(layouts[i].size()) == shapes[i].rank(), op, "layout {} of {} {}",
          dims_to_string(layouts[i]), what, shapes[i].to_string());
    check_dims(op, layouts[i], shapes[i].rank(), "layout");
  }
}

void check_alias(const OpContext& op, const OutputOperandAlias& alias) {
  const auto output = static_cast<size_t>(alias.output_index.value_or(0));
  const auto operand = static_cast<size_t>(alias.operand_index);
  check(output < op.declared.size() && operand < op.operands.size(), op,
        "alias of output {} with operand {}: there are {} outputs and {} operands", output, operand,
        op.declared.size(), op.operands.size());
  check(alias.output_index.has_value() == (op.declared.size() != 1), op,
        "an alias names its output when there are several, and only then");
  check(op.declared[output] == op.shape(operand), op, "alias of output {} with operand {}",
        op.declared[output].to_string(), op.shape(operand).to_string());
}

}  // namespace

std::vector<Shape> infer_custom_call(const OpContext& op) {
  const Attributes& a = op.attributes;
  check(!a.get<std::string>("call_target_name").empty(), op, "no target given");
  const auto* operand_layouts = a.get_if<std::vector<Dims>>("operand_layouts");
  const auto* result_layouts = a.get_if<std::vector<Dims>>("result_layouts");
  check((operand_layouts == nullptr) == (result_layouts == nullptr), op,
        "layouts of operands or of results alone; give both or neither");
  if (operand_layouts != nullptr) {
    check_layouts(op, *operand_layouts, shapes_of(op.operands), "operand");
    check_layouts(op, *result_layouts, op.declared, "result");
  }
  if (const auto* aliases = a.get_if<std::vector<OutputOperandAlias>>("output_operand_aliases")) {
    for (const OutputOperandAlias& alias : *aliases) check_alias(op, alias);
  }
  return op.declared;
}

Values custom_call(Function& function, std::string target, const Values& operands,
                   const std::vector<Shape>& results, const CustomCallOptions& options) {
  require(options.api_version >= 1 && options.api_version <= 4,
          "[custom_call] api_version {}, 1 to 4 expected", options.api_version);
  require(options.api_version == 4 || options.backend_config.empty(),
          "[custom_call] '{}': a backend_config of typed attributes needs api_version 4", target);
  Attributes a{{"call_target_name", std::move(target)},
               {"has_side_effect", options.has_side_effect},
               {"api_version", I32{options.api_version}}};
  if (options.api_version == 4) {
    a.set("backend_config", options.backend_config);
  } else if (!options.backend_config_text.empty()) {
    a.set("backend_config", options.backend_config_text);
  }
  if (!options.operand_layouts.empty() || !options.result_layouts.empty()) {
    a.set("operand_layouts", options.operand_layouts);
    a.set("result_layouts", options.result_layouts);
  }
  if (!options.output_operand_aliases.empty()) {
    a.set("output_operand_aliases", options.output_operand_aliases);
  }
  for (const auto& [name, value] : options.attributes) {
    a.set(name, std::visit([](const auto& entry) { return as_attribute(entry); }, value));
  }
  if (!options.frontend_attributes.empty()) {
    a.set("mhlo.frontend_attributes", options.frontend_attributes);
  }
  return function.append(OpKind::kCustomCall, operands, std::move(a), {}, results).results;
}

Values row_major_call(Function& function, std::string target, const Values& operands,
                      const std::vector<Shape>& results, CustomCallOptions options) {
  const auto row_major = [](const Shape& shape) {
    Dims order;
    for (int64_t axis = shape.rank() - 1; axis >= 0; --axis) order.push_back(axis);
    return order;
  };
  for (const Value operand : operands)
    options.operand_layouts.push_back(row_major(operand.shape()));
  for (const Shape& result : results) options.result_layouts.push_back(row_major(result));
  return custom_call(function, std::move(target), operands, results, options);
}

}  // namespace ttpu::ir
