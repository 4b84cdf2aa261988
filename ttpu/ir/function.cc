#include "ttpu/ir/function.h"

#include <algorithm>

#include "ttpu/base/error.h"
#include "ttpu/ir/infer.h"
#include "ttpu/ir/module.h"

namespace ttpu::ir {

const Shape& Value::shape() const { return function().shape_of(id_); }

Function& Value::function() const {
  if (function_ == nullptr) {
    fail(Code::kInvalidArgument,
         "[value] an empty Value was used; build it with an operator first");
  }
  return *function_;
}

Operation* Value::producer() const { return function().producer_of(id_); }

Function::Function(Module* module, std::string name) : module_(module), name_(std::move(name)) {
  open_.push_back(&body_);
}

Value Function::new_value(Shape shape, Operation* producer, const Region* region) {
  for (const int64_t dim : shape.dims) {
    require(dim >= 0, "[value] {} has a negative dimension", dims_to_string(shape.dims));
  }
  values_.push_back({std::move(shape), producer, region});
  return Value(this, static_cast<int32_t>(values_.size()) - 1);
}

Value Function::add_argument(Shape shape, std::string name) {
  if (finished_) {
    fail(Code::kFailedPrecondition, "[function] '{}' is finished; add arguments before set_results",
         name_);
  }
  const Value value = new_value(std::move(shape), nullptr, &body_);
  body_.arguments.push_back(value);
  arguments_.push_back({std::move(name), std::nullopt, std::nullopt, false});
  return value;
}

void Function::set_results(const Values& values, std::vector<std::string> names) {
  if (open_.size() != 1) {
    fail(Code::kFailedPrecondition, "[function] set_results of '{}' inside an open region", name_);
  }
  require(names.empty() || names.size() == values.size(),
          "[function] '{}' has {} results and {} names for them", name_, values.size(),
          names.size());
  append(OpKind::kReturn, values);
  finished_ = true;
  if (results_.size() < values.size()) results_.resize(values.size());
  for (size_t i = 0; i < names.size(); ++i) results_[i].name = std::move(names[i]);
}

void Function::set_text(TextBody body, const std::vector<Shape>& results) {
  require(body_.operations.empty(), "[function] set_text of '{}', which has operators", name_);
  for (const TextBody::Update& update : body.updates) {
    require(update.argument < body_.arguments.size() && update.result < results.size() &&
                body_.arguments[update.argument].shape() == results[update.result],
            "[function] text of '{}' updates argument {} as result {}: no such pair of one shape",
            name_, update.argument, update.result);
  }
  for (const TextBody::Read& read : body.reads) {
    require(read.argument < body_.arguments.size(),
            "[function] text of '{}' reads argument {} of {}", name_, read.argument,
            body_.arguments.size());
  }
  Values values;
  for (const Shape& shape : results) values.push_back(new_value(shape, nullptr, &body_));
  set_results(values);
  text_ = std::move(body);
}

size_t Function::argument_index(Value argument, const char* what) const {
  const Values& all = body_.arguments;
  const auto found = std::find(all.begin(), all.end(), argument);
  require(found != all.end(), "[function] {} of a value that is not an argument of '{}'", what,
          name_);
  return static_cast<size_t>(found - all.begin());
}

void Function::alias(Value argument, int result_index) {
  ArgumentInfo& info = arguments_[argument_index(argument, "alias")];
  require(result_index >= 0, "[function] alias with result {}", result_index);
  if (finished_) {
    const Values& all = results();
    require(result_index < static_cast<int>(all.size()),
            "[function] alias with result {} of '{}', which has {}", result_index, name_,
            all.size());
    const Shape& shape = all[static_cast<size_t>(result_index)].shape();
    require(shape == argument.shape(), "[function] alias of an argument {} with result {}, {}",
            argument.shape().to_string(), result_index, shape.to_string());
  }
  info.aliases_result = result_index;
}

void Function::donate(Value argument) {
  arguments_[argument_index(argument, "donate")].donated = true;
}

void Function::set_sharding(Value argument, Sharding sharding) {
  arguments_[argument_index(argument, "set_sharding")].sharding = std::move(sharding);
}

void Function::set_result_sharding(int result_index, Sharding sharding) {
  require(result_index >= 0, "[function] set_result_sharding of result {}", result_index);
  const auto index = static_cast<size_t>(result_index);
  if (results_.size() <= index) results_.resize(index + 1);
  results_[index].sharding = std::move(sharding);
}

const Values& Function::results() const {
  if (!finished_) {
    fail(Code::kFailedPrecondition, "[function] '{}' has no results yet; call set_results", name_);
  }
  return body_.yielded();
}

ResultInfo Function::result_info(size_t index) const {
  return index < results_.size() ? results_[index] : ResultInfo{};
}

bool Function::is_visible(Value value) const {
  if (&value.function() != this) return false;
  const Region* home = region_of(value.id());
  for (const Region* region = open_.back(); region != nullptr; region = region->parent) {
    if (region == home) return true;
    if (region->isolated) return false;
  }
  return false;
}

Operation& Function::append(OpKind kind, Values operands, Attributes attributes,
                            std::vector<Region*> regions, const std::vector<Shape>& result_shapes) {
  if (finished_) {
    fail(Code::kFailedPrecondition, "[{}] function '{}' is finished; nothing can be added",
         op_short_name(kind), name_);
  }
  for (size_t i = 0; i < operands.size(); ++i) {
    require(static_cast<bool>(operands[i]), "[{}] operand {} is an empty Value",
            op_short_name(kind), i);
    require(&operands[i].function() == this,
            "[{}] operand {} belongs to function '{}', the operator to '{}'", op_short_name(kind),
            i, operands[i].function().name(), name_);
    require(is_visible(operands[i]),
            "[{}] operand {} ({}) cannot be used here: its region does not enclose the insertion "
            "point, or a body in between sees only its own arguments",
            op_short_name(kind), i, operands[i].shape().to_string());
  }
  std::vector<Shape> shapes =
      infer_results(OpContext{kind, operands, attributes, regions, result_shapes});
  Region* region = open_.back();
  Operation& operation = operations_.emplace_back();
  operation.kind = kind;
  operation.operands = std::move(operands);
  operation.attributes = std::move(attributes);
  operation.regions = std::move(regions);
  operation.parent = region;
  for (Shape& shape : shapes) {
    operation.results.push_back(new_value(std::move(shape), &operation, region));
  }
  region->operations.push_back(&operation);
  return operation;
}

Region* Function::build_region(const std::vector<Shape>& argument_shapes, bool isolated,
                               const std::function<Values(const Values&)>& build) {
  Region& region = regions_.emplace_back();
  region.parent = open_.back();
  region.isolated = isolated;
  for (const Shape& shape : argument_shapes) {
    region.arguments.push_back(new_value(shape, nullptr, &region));
  }
  struct Open {
    std::vector<Region*>& stack;
    Open(std::vector<Region*>& regions, Region* inner) : stack(regions) { stack.push_back(inner); }
    ~Open() { stack.pop_back(); }
  } open(open_, &region);
  append(OpKind::kReturn, build(region.arguments));
  return &region;
}

std::vector<std::vector<Operation*>> Function::users() const {
  std::vector<std::vector<Operation*>> result(values_.size());
  walk(body_, [&](Operation& operation) {
    for (const Value operand : operation.operands) {
      result[static_cast<size_t>(operand.id())].push_back(&operation);
    }
  });
  return result;
}

}  // namespace ttpu::ir
