// What was computed, in order, and the pass back over it: reverse-mode differentiation (Griewank,
// Walther: Evaluating Derivatives, 2008). A rule for each operator says how the cotangents of its
// results become those of its operands.
#pragma once

#include <functional>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "ttpu/ir/function.h"

namespace ttpu::grad {

// One operator, or one call of a function that has a gradient of its own.
struct Step {
  const ir::Operation* operation = nullptr;
  const ir::CustomGradient* custom = nullptr;
  ir::Values operands;
  ir::Values results;
  ir::Values kept;  // what CustomGradient::forward gave
};

// The sums of cotangents of values of one function. An empty Value is zero.
class Cotangents {
 public:
  // Gradients go to values that depend on `inputs`, and are floats.
  Cotangents(const std::vector<Step>& steps, const ir::Values& inputs);

  bool wants(ir::Value value) const { return active_.contains(value.id()); }
  ir::Value of(ir::Value value) const;
  void add(ir::Value value, ir::Value cotangent);
  // A cotangent of the part of `value` from `starts` on, as dynamic_slice takes it.
  void add_part(ir::Value value, ir::Value cotangent, const ir::Values& starts);

 private:
  std::unordered_set<int32_t> active_;
  std::unordered_map<int32_t, ir::Value> sums_;
};

// How a rule sees its operator.
class Reverse {
 public:
  Reverse(const ir::Operation& operation, Cotangents& cotangents)
      : operation_(operation), cotangents_(cotangents) {}

  const ir::Operation& operation() const { return operation_; }
  ir::Value operand(size_t index) const { return operation_.operands.at(index); }
  ir::Value result(size_t index = 0) const { return operation_.results.at(index); }
  // Of a result; never empty for the only one.
  ir::Value cotangent(size_t index = 0) const { return cotangents_.of(result(index)); }
  bool wants(size_t index) const { return cotangents_.wants(operand(index)); }
  // Does nothing for an operand that wants none.
  void give(size_t index, const std::function<ir::Value()>& cotangent) const;
  void give_part(size_t index, const std::function<ir::Value()>& cotangent,
                 const ir::Values& starts) const;
  template <typename T>
  const T& attribute(std::string_view name) const {
    return operation_.attributes.get<T>(name);
  }
  // Throws kUnimplemented with the operator and `what`.
  [[noreturn]] void refuse(std::string_view what) const;

 private:
  const ir::Operation& operation_;
  Cotangents& cotangents_;
};

using Rule = void (*)(const Reverse&);
// Null where the operator has none.
Rule rule_of(ir::OpKind kind);

// Adds the operators that give the cotangents of `inputs`, those of `outputs` being `cotangents`
// (empty: zero). Empty where an input has no part in them. Throws kUnimplemented for an operator
// without a rule.
ir::Values pass_back(const std::vector<Step>& steps, const ir::Values& outputs,
                     const ir::Values& cotangents, const ir::Values& inputs);

}  // namespace ttpu::grad
