// Textual StableHLO. The pretty form is used where it is much shorter than the generic one; both
// are read by every plugin.
#include <fmt/ranges.h>

#include "ttpu/ir/infer.h"
#include "ttpu/ir/module.h"

namespace ttpu::ir {
namespace {

using Out = std::back_insert_iterator<std::string>;

std::string types(const Values& values) { return shapes_to_string(values); }

std::string types_or_one(const Values& values) {
  return values.size() == 1 ? values[0].shape().to_string() : types(values);
}

std::string bare_types(const Values& values) {
  std::vector<std::string> texts;
  for (const Value value : values) texts.push_back(value.shape().to_string());
  return fmt::format("{}", fmt::join(texts, ", "));
}

class FunctionPrinter {
 public:
  FunctionPrinter(const Function& function, std::string& out)
      : function_(function), out_(out), names_(function.num_values()) {}

  void print() {
    if (const TextBody* body = function_.text()) {
      out_ += body->text;
      return;
    }
    const bool is_main = function_.name() == "main";
    write("  func.func {} {}(", is_main ? "public" : "private",
          to_string(Attribute(Symbol{function_.name()})));
    for (size_t i = 0; i < function_.arguments().size(); ++i) argument(i);
    out_ += ") -> (";
    for (size_t i = 0; i < function_.results().size(); ++i) result(i);
    out_ += ") {\n";
    operations(function_.body(), "return", 4);
    out_ += "  }\n";
  }

 private:
  template <typename... Args>
  void write(fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(Out(out_), format, std::forward<Args>(args)...);
  }

  std::string& name_of(Value value) { return names_[static_cast<size_t>(value.id())]; }

  std::string names(const Values& values) {
    std::string text;
    for (const Value value : values) {
      if (!text.empty()) text += ", ";
      text += name_of(value);
    }
    return text;
  }

  void argument(size_t index) {
    const Value value = function_.arguments()[index];
    const ArgumentInfo& info = function_.argument_info(index);
    name_of(value) = fmt::format("%arg{}", index);
    std::vector<std::string> attributes;
    if (info.sharding) attributes.push_back("sdy.sharding = " + info.sharding->to_string());
    if (info.aliases_result) {
      attributes.push_back(fmt::format("tf.aliasing_output = {} : i32", *info.aliases_result));
    } else if (info.donated) {
      attributes.emplace_back("jax.buffer_donor = true");
    }
    write("{}{}: {}", index > 0 ? ", " : "", name_of(value), value.shape().to_string());
    if (!attributes.empty()) write(" {{{}}}", fmt::join(attributes, ", "));
    if (!info.name.empty()) write(" loc({})", quoted(info.name));
  }

  void result(size_t index) {
    const ResultInfo info = function_.result_info(index);
    std::vector<std::string> attributes;
    if (!info.name.empty()) attributes.push_back("jax.result_info = " + quoted(info.name));
    if (info.sharding) attributes.push_back("sdy.sharding = " + info.sharding->to_string());
    write("{}{}", index > 0 ? ", " : "", function_.results()[index].shape().to_string());
    if (!attributes.empty()) write(" {{{}}}", fmt::join(attributes, ", "));
  }

  void operations(const Region& region, std::string_view terminator, size_t indent) {
    for (const Operation* operation : region.operations) {
      out_.append(indent, ' ');
      if (operation->kind == OpKind::kReturn) {
        write("{}", terminator);
        if (!operation->operands.empty()) {
          write(" {} : {}", names(operation->operands), bare_types(operation->operands));
        }
      } else {
        results(*operation);
        body(*operation, indent);
      }
      out_ += '\n';
    }
  }

  void results(const Operation& op) {
    if (op.results.empty()) return;
    const int number = next_++;
    if (op.results.size() == 1) {
      name_of(op.results[0]) = fmt::format("%{}", number);
      write("%{} = ", number);
      return;
    }
    for (size_t i = 0; i < op.results.size(); ++i) {
      name_of(op.results[i]) = fmt::format("%{}#{}", number, i);
    }
    write("%{}:{} = ", number, op.results.size());
  }

  void block_arguments(const Region& region) {
    for (const Value value : region.arguments) {
      name_of(value) = fmt::format("%{}", next_++);
      write("{}{}: {}", value == region.arguments[0] ? "" : ", ", name_of(value),
            value.shape().to_string());
    }
  }

  // The operator after "%n = ".
  void body(const Operation& op, size_t indent) {
    const Attributes& a = op.attributes;
    switch (op.kind) {
      case OpKind::kConstant:
        return write("stablehlo.constant {}", a.get<Literal>("value").to_string());
      case OpKind::kIota:
        return write("stablehlo.iota dim = {} : {}", a.get<int64_t>("iota_dimension"),
                     op.result().shape().to_string());
      case OpKind::kPartitionId:
      case OpKind::kReplicaId:
        return write("{} : {}", op_name(op.kind), op.result().shape().to_string());
      case OpKind::kCompare:
        return write("stablehlo.compare {}, {}, {} : {}",
                     to_string(a.get<ComparisonDirection>("comparison_direction")),
                     names(op.operands), to_string(a.get<ComparisonType>("compare_type")),
                     signature(op));
      case OpKind::kSelect:
        return write("stablehlo.select {} : {}, {}", names(op.operands),
                     op.operands[0].shape().to_string(), op.result().shape().to_string());
      case OpKind::kSlice:
        return slice(op);
      case OpKind::kCall:
        return write("func.call {}({}) : {}", to_string(Attribute(a.get<Symbol>("callee"))),
                     names(op.operands), signature(op));
      case OpKind::kShardingConstraint:
        return write("sdy.sharding_constraint {} {} : {}", names(op.operands),
                     a.get<Sharding>("sharding").body_to_string(), op.result().shape().to_string());
      case OpKind::kManualComputation:
        return manual_computation(op, indent);
      case OpKind::kReduce:
        if (reduce_applies(op)) return;
        return generic(op, indent);
      default:
        break;
    }
    if (const std::optional<std::string> extra = functional(op)) {
      return write("{} {}{} : {}", op_name(op.kind), names(op.operands), *extra, signature(op));
    }
    if (same_type(op)) {
      return write("{} {} : {}", op_name(op.kind), names(op.operands),
                   op.result().shape().to_string());
    }
    generic(op, indent);
  }

  static std::string signature(const Operation& op) {
    return fmt::format("{} -> {}", types(op.operands), types_or_one(op.results));
  }

  // Elementwise operators whose operands and result have one type.
  static bool same_type(const Operation& op) {
    if (op_family(op.kind) != Family::kElementwise || !op.regions.empty()) return false;
    for (const Value operand : op.operands) {
      if (operand.shape() != op.result().shape()) return false;
    }
    return true;
  }

  // What stands between operands and signature, for the operators that are printed so.
  static std::optional<std::string> functional(const Operation& op) {
    const Attributes& a = op.attributes;
    switch (op.kind) {
      case OpKind::kReshape:
      case OpKind::kConvert:
      case OpKind::kBitcastConvert:
      case OpKind::kIsFinite:
      case OpKind::kDynamicUpdateSlice:
        return "";
      case OpKind::kTranspose:
        return ", dims = " + dims_to_string(a.get<Dims>("permutation"));
      case OpKind::kBroadcastInDim:
        return ", dims = " + dims_to_string(a.get<Dims>("broadcast_dimensions"));
      case OpKind::kDynamicSlice:
        return ", sizes = " + dims_to_string(a.get<Dims>("slice_sizes"));
      case OpKind::kConcatenate:
        return fmt::format(", dim = {}", a.get<int64_t>("dimension"));
      case OpKind::kPad:
        return fmt::format(", low = {}, high = {}, interior = {}",
                           dims_to_string(a.get<Dims>("edge_padding_low")),
                           dims_to_string(a.get<Dims>("edge_padding_high")),
                           dims_to_string(a.get<Dims>("interior_padding")));
      case OpKind::kDotGeneral:
        return dot(a);
      default:
        return std::nullopt;
    }
  }

  static std::string dot(const Attributes& a) {
    const auto& d = a.get<DotDimensionNumbers>("dot_dimension_numbers");
    std::string text;
    if (!d.lhs_batching.empty()) {
      text += fmt::format(", batching_dims = {} x {}", dims_to_string(d.lhs_batching),
                          dims_to_string(d.rhs_batching));
    }
    text += fmt::format(", contracting_dims = {} x {}", dims_to_string(d.lhs_contracting),
                        dims_to_string(d.rhs_contracting));
    if (const auto* precision = a.get_if<std::vector<Precision>>("precision_config")) {
      text += fmt::format(", precision = [{}, {}]", to_string(precision->at(0)),
                          to_string(precision->at(1)));
    }
    return text;
  }

  void slice(const Operation& op) {
    const auto& start = op.attributes.get<Dims>("start_indices");
    const auto& limit = op.attributes.get<Dims>("limit_indices");
    const auto& strides = op.attributes.get<Dims>("strides");
    std::vector<std::string> ranges;
    for (size_t i = 0; i < start.size(); ++i) {
      ranges.push_back(fmt::format("{}:{}", start[i], limit[i]));
      if (strides[i] != 1) ranges.back() += fmt::format(":{}", strides[i]);
    }
    write("stablehlo.slice {} [{}] : {}", names(op.operands), fmt::join(ranges, ", "),
          signature(op));
  }

  // `stablehlo.reduce(%x init: %c) applies stablehlo.add across dimensions = [1] : ...`, when the
  // body is that one operator of its two arguments in order.
  bool reduce_applies(const Operation& op) {
    const Region& region = *op.regions[0];
    if (op.operands.size() != 2 || region.operations.size() != 2) return false;
    const Operation& inner = *region.operations[0];
    const bool plain = inner.operands == region.arguments && inner.attributes.empty() &&
                       region.yielded() == inner.results;
    if (!plain) return false;
    write("stablehlo.reduce({} init: {}) applies {} across dimensions = {} : {}",
          name_of(op.operands[0]), name_of(op.operands[1]), op_name(inner.kind),
          dims_to_string(op.attributes.get<Dims>("dimensions")), signature(op));
    return true;
  }

  void manual_computation(const Operation& op, size_t indent) {
    const auto shardings = [&](const char* name) {
      std::vector<std::string> items;
      for (const Sharding& sharding : op.attributes.get<std::vector<Sharding>>(name)) {
        items.push_back(sharding.body_to_string());
      }
      return fmt::format("{}=[{}]", name, fmt::join(items, ", "));
    };
    std::vector<std::string> axes;
    for (const auto& axis : op.attributes.get<std::vector<std::string>>("manual_axes")) {
      axes.push_back(quoted(axis));
    }
    write("sdy.manual_computation({}) {} {} manual_axes={{{}}} (", names(op.operands),
          shardings("in_shardings"), shardings("out_shardings"), fmt::join(axes, ", "));
    block_arguments(*op.regions[0]);
    out_ += ") {\n";
    operations(*op.regions[0], "sdy.return", indent + 2);
    out_.append(indent, ' ');
    write("}} : {}", signature(op));
  }

  void generic(const Operation& op, size_t indent) {
    write("\"{}\"({})", op_name(op.kind), names(op.operands));
    if (!op.regions.empty()) {
      out_ += " (";
      for (const Region* region : op.regions) {
        write("{}{{\n", region == op.regions[0] ? "" : ", ");
        if (!region->arguments.empty()) {
          out_.append(indent, ' ');
          out_ += "^bb0(";
          block_arguments(*region);
          out_ += "):\n";
        }
        operations(*region, "stablehlo.return", indent + 2);
        out_.append(indent, ' ');
        out_ += '}';
      }
      out_ += ')';
    }
    std::vector<std::string> attributes;
    for (const auto& [name, value] : op.attributes) {
      const bool unit = std::holds_alternative<std::monostate>(value);
      attributes.push_back(unit ? name : fmt::format("{} = {}", name, to_string(value)));
    }
    if (!attributes.empty()) write(" {{{}}}", fmt::join(attributes, ", "));
    write(" : {}", signature(op));
  }

  const Function& function_;
  std::string& out_;
  std::vector<std::string> names_;  // by value id
  int next_ = 0;
};

}  // namespace

std::string Module::to_string() const {
  std::string out = fmt::format("module {} {{\n", ir::to_string(Attribute(Symbol{name_})));
  for (const Mesh& mesh : meshes_) {
    std::vector<std::string> axes;
    for (const auto& [name, size] : mesh.axes) {
      axes.push_back(fmt::format("{}={}", quoted(name), size));
    }
    fmt::format_to(Out(out), "  sdy.mesh @{} = <[{}]>\n", mesh.name, fmt::join(axes, ", "));
  }
  for (const auto& function : functions_) FunctionPrinter(*function, out).print();
  return out + "}\n";
}

}  // namespace ttpu::ir
