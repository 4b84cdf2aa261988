// The program form of TTPU: a module of functions whose operators mirror StableHLO one to one
// (https://openxla.org/stablehlo/spec). Operators are data (kind, operands, attributes, regions),
// so that passes can walk them; they are built by the free functions of the sibling headers, which
// infer and check shapes at once and append to the innermost region that is being built.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "ttpu/base/shape.h"
#include "ttpu/ir/op_kind.h"

namespace ttpu::ir {

class Function;
class Module;
struct Operation;
struct Region;

// A cheap handle to one value of a function: an argument, a result or a block argument.
class Value {
 public:
  Value() = default;
  Value(Function* function, int id) : function_(function), id_(id) {}

  explicit operator bool() const { return function_ != nullptr; }
  Function& function() const { return *function_; }
  int id() const { return id_; }
  const Shape& shape() const;
  const Dims& dims() const { return shape().dims; }
  DType dtype() const { return shape().dtype; }
  int rank() const { return shape().rank(); }
  int64_t dim(int axis) const { return shape().dim(axis); }  // negative axes count from the end
  const Operation* producer() const;                         // null for arguments
  bool operator==(const Value&) const = default;

 private:
  Function* function_ = nullptr;
  int id_ = -1;
};

using Values = std::vector<Value>;

// Elements of a constant: row-major, little endian, 4-bit types one element a byte. A splat holds
// one.
struct Literal {
  Shape shape;
  std::vector<std::byte> bytes;
  bool splat = false;
};

// An enumeration attribute: #stablehlo<comparison_direction LT>.
struct EnumAttr {
  std::string name;
  std::string value;
};

// Attribute text that has a syntax of its own (dimension numbers, layouts): kept as fields, printed
// by the family that made it.
struct StructAttr {
  std::string name;                                  // "stablehlo.dot"
  std::vector<std::pair<std::string, Dims>> fields;  // empty lists are not printed
  std::map<std::string, int64_t> scalars;
};

// A dictionary such as the backend_config of a custom call.
using DictValue = std::variant<bool, int64_t, double, std::string, Dims>;
using DictAttr = std::vector<std::pair<std::string, DictValue>>;

struct RawAttr {
  std::string text;  // printed as it is
};

using Attribute = std::variant<bool, int64_t, double, std::string, Dims, std::vector<bool>, Literal,
                               EnumAttr, StructAttr, DictAttr, RawAttr>;

struct Operation {
  OpKind kind;
  Values operands;
  Values results;
  std::vector<std::pair<std::string, Attribute>> attributes;
  std::vector<std::unique_ptr<Region>> regions;
  Region* parent = nullptr;

  const Attribute* attribute(std::string_view name) const;
};

// One block: arguments, then operators in order, the last of which is the terminator.
struct Region {
  Values arguments;
  std::vector<Operation*> operations;
  Operation* owner = nullptr;  // null for the body of a function
  Region* parent = nullptr;
};

struct Argument {
  std::string name;
  std::string sharding;     // text of an sdy.sharding, empty: none
  int aliased_result = -1;  // donated: the result that takes its memory
};

class Function {
 public:
  Function(Module& module, std::string name) : module_(&module), name_(std::move(name)) {
    stack_.push_back(&body_);
  }
  Function(const Function&) = delete;
  Function& operator=(const Function&) = delete;

  Module& module() const { return *module_; }
  const std::string& name() const { return name_; }

  Value add_argument(Shape shape, std::string name = "");
  // Donates the argument: its memory is taken by that result, which must have the same shape.
  void alias(Value argument, int result_index);
  void set_sharding(Value argument, std::string sharding);
  void set_results(const Values& results);

  const Values& arguments() const { return body_.arguments; }
  const std::vector<Argument>& argument_info() const { return argument_info_; }
  const Values& results() const { return results_; }
  const Region& body() const { return body_; }

  // For the builders. Appends an operator to the innermost open region and returns its results.
  // Throws kInvalidArgument when an operand is not visible there.
  Values append(OpKind kind, Values operands, std::vector<Shape> result_shapes,
                std::vector<std::pair<std::string, Attribute>> attributes = {},
                std::vector<std::unique_ptr<Region>> regions = {});
  // Builds a region: `build` gets the block arguments and returns the terminator's operands.
  std::unique_ptr<Region> build_region(const std::vector<Shape>& arguments,
                                       const std::function<Values(const Values&)>& build,
                                       OpKind terminator = OpKind::kReturn);

  const Shape& shape_of(int id) const { return values_.at(static_cast<size_t>(id)).shape; }
  const Operation* producer_of(int id) const {
    return values_.at(static_cast<size_t>(id)).producer;
  }

 private:
  struct ValueInfo {
    Shape shape;
    const Operation* producer = nullptr;
    const Region* region = nullptr;
  };
  Value new_value(Shape shape, const Operation* producer, const Region* region);
  void check_visible(OpKind kind, Value operand) const;

  Module* module_;
  std::string name_;
  Region body_;
  std::vector<Region*> stack_;
  std::deque<Operation> operations_;
  std::vector<ValueInfo> values_;
  std::vector<Argument> argument_info_;
  Values results_;
};

class Module {
 public:
  explicit Module(std::string name = "ttpu") : name_(std::move(name)) {}

  // The function called "main" is the entry. Throws kAlreadyExists for a name that is taken.
  Function& add_function(const std::string& name = "main");
  // sdy.mesh: axes by name and size.
  void add_mesh(std::string name, std::vector<std::pair<std::string, int64_t>> axes);
  const std::deque<Function>& functions() const { return functions_; }

  // StableHLO text that PJRT takes as program format "mlir". Throws kFailedPrecondition when a
  // function has no results set.
  std::string to_string() const;

 private:
  std::string name_;
  std::deque<Function> functions_;
  std::vector<std::pair<std::string, std::vector<std::pair<std::string, int64_t>>>> meshes_;
};

}  // namespace ttpu::ir
