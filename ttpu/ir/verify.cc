#include "ttpu/ir/infer.h"
#include "ttpu/ir/module.h"

namespace ttpu::ir {
namespace {

// Walks a function in program order and keeps which values exist at each point.
class Verifier {
 public:
  Verifier(const Module& module, const Function& function)
      : module_(module), function_(function), defined_(function.num_values(), false) {}

  void run() {
    if (!function_.is_finished()) reject("it has no results; call set_results");
    if (function_.text() != nullptr) return;
    region(function_.body());
    aliases();
    shardings();
  }

 private:
  template <typename... Args>
  [[noreturn]] void reject(fmt::format_string<Args...> format, Args&&... args) const {
    throw Error(Code::kInvalidArgument,
                fmt::format("[verify] function '{}': {}", function_.name(),
                            fmt::format(format, std::forward<Args>(args)...)));
  }

  void define(Value value) {
    if (!value || &value.function() != &function_) reject("a value belongs to another function");
    defined_.at(static_cast<size_t>(value.id())) = true;
  }

  void undefine(const Region& region) {
    for (const Value value : region.arguments) defined_.at(static_cast<size_t>(value.id())) = false;
    for (const Operation* operation : region.operations) {
      for (const Value value : operation->results) {
        defined_.at(static_cast<size_t>(value.id())) = false;
      }
    }
  }

  void region(const Region& region) {
    for (const Value argument : region.arguments) define(argument);
    if (region.operations.empty() || region.operations.back()->kind != OpKind::kReturn) {
      reject("a region does not end with a return");
    }
    for (size_t i = 0; i < region.operations.size(); ++i) {
      const Operation& op = *region.operations[i];
      if (op.kind == OpKind::kReturn && i + 1 != region.operations.size()) {
        reject("a return stands before the end of its region");
      }
      operation(op);
    }
  }

  void inner_region(const Region& inner) {
    if (!inner.isolated) {
      region(inner);
      undefine(inner);
      return;
    }
    std::vector<bool> outside(defined_.size(), false);
    defined_.swap(outside);
    region(inner);
    defined_.swap(outside);
  }

  void operation(const Operation& op) {
    for (size_t i = 0; i < op.operands.size(); ++i) {
      const Value operand = op.operands[i];
      if (!operand || &operand.function() != &function_) {
        reject("operand {} of {} belongs to another function", i, op_short_name(op.kind));
      }
      if (!defined_.at(static_cast<size_t>(operand.id()))) {
        reject("operand {} of {} ({}) is used where it does not exist", i, op_short_name(op.kind),
               operand.shape().to_string());
      }
    }
    for (const Region* inner : op.regions) inner_region(*inner);
    const std::vector<Shape> given = shapes_of(op.results);
    std::vector<Shape> inferred;
    try {
      inferred = infer_results(OpContext{op.kind, op.operands, op.attributes, op.regions, given});
    } catch (const Error& error) {
      reject("{}", error.what());
    }
    if (inferred != given) {
      reject("{} has results {}, but its operands give {}", op_short_name(op.kind),
             shapes_to_string(given), shapes_to_string(inferred));
    }
    if (op.kind == OpKind::kCall) callee(op);
    for (const Value value : op.results) define(value);
  }

  void callee(const Operation& op) const {
    const std::string& name = op.attributes.get<Symbol>("callee").name;
    const Function* target = module_.find_function(name);
    if (target == nullptr) reject("calls '{}', which the module does not have", name);
    if (!target->is_finished()) reject("calls '{}', which has no results yet", name);
    const std::vector<Shape> arguments = shapes_of(target->arguments());
    const std::vector<Shape> results = shapes_of(target->results());
    if (shapes_of(op.operands) != arguments || shapes_of(op.results) != results) {
      reject("calls '{}' with {} -> {}, which is {} -> {}", name, shapes_to_string(op.operands),
             shapes_to_string(op.results), shapes_to_string(arguments), shapes_to_string(results));
    }
  }

  void aliases() const {
    const Values& results = function_.results();
    std::vector<bool> taken(results.size(), false);
    for (size_t i = 0; i < function_.arguments().size(); ++i) {
      const std::optional<int> alias = function_.argument_info(i).aliases_result;
      if (!alias) continue;
      const auto index = static_cast<size_t>(*alias);
      if (index >= results.size()) {
        reject("argument {} aliases result {} of {}", i, index, results.size());
      }
      const Shape& shape = function_.arguments()[i].shape();
      if (shape != results[index].shape()) {
        reject("argument {} ({}) aliases result {} ({}); shapes must be equal", i,
               shape.to_string(), index, results[index].shape().to_string());
      }
      if (taken[index]) reject("two arguments alias result {}", index);
      taken[index] = true;
    }
  }

  void shardings() const {
    for (size_t i = 0; i < function_.arguments().size(); ++i) {
      sharding(function_.argument_info(i).sharding, function_.arguments()[i].shape(), "argument",
               i);
    }
    for (size_t i = 0; i < function_.results().size(); ++i) {
      sharding(function_.result_info(i).sharding, function_.results()[i].shape(), "result", i);
    }
  }

  void sharding(const std::optional<Sharding>& sharding, const Shape& shape, const char* what,
                size_t index) const {
    if (!sharding) return;
    const Mesh* mesh = module_.find_mesh(sharding->mesh);
    if (mesh == nullptr) {
      reject("{} {} is sharded over mesh '{}', which the module does not have", what, index,
             sharding->mesh);
    }
    try {
      check_sharding(*sharding, *mesh, shape, what);
    } catch (const Error& error) {
      reject("{}", error.what());
    }
  }

  const Module& module_;
  const Function& function_;
  std::vector<bool> defined_;
};

}  // namespace

void Module::verify() const {
  for (const auto& function : functions_) Verifier(*this, *function).run();
}

}  // namespace ttpu::ir
