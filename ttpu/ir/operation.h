// Operators and regions: the body of a function as data, to be walked. The Function owns them all.
#pragma once

#include <functional>
#include <vector>

#include "ttpu/ir/attribute.h"
#include "ttpu/ir/op_kind.h"
#include "ttpu/ir/value.h"

namespace ttpu::ir {

struct Region;

struct Operation {
  OpKind kind = OpKind::kReturn;
  Values operands;
  Values results;
  Attributes attributes;
  std::vector<Region*> regions;
  Region* parent = nullptr;  // the region that holds this operator

  Value result(size_t index = 0) const { return results.at(index); }
};

// One block. A finished region ends with a kReturn whose operands are what the region yields.
struct Region {
  Values arguments;
  std::vector<Operation*> operations;
  Region* parent = nullptr;  // the region that was being built around this one; null for a body
  // Sees only its own arguments (bodies of reduce, sort, scatter, manual_computation ...). Regions
  // of control flow also see the values around them.
  bool isolated = true;

  // The operands of the closing kReturn. Throws kFailedPrecondition before it is there.
  const Values& yielded() const;
};

// Calls `visit` on each operator, outer before inner, in program order.
void walk(const Region& region, const std::function<void(Operation&)>& visit);

}  // namespace ttpu::ir
