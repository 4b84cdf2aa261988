// Control flow. The regions may use the values around them.
#pragma once

#include <functional>

#include "ttpu/ir/attribute.h"

namespace ttpu::ir {

using Branch = std::function<Values()>;

// cond: i1 scalar. body: the same shapes as inits.
Values while_loop(const Values& inits, const std::function<Value(const Values&)>& cond,
                  const std::function<Values(const Values&)>& body);
// A loop that counts from 0 to `turns`: `turn` of the number (i32) and the values gives those of
// the next turn. Returns the last. One turn is made without a loop.
Values repeat(int64_t turns, const Values& inits,
              const std::function<Values(Value index, const Values& values)>& turn);
Values if_(Value pred, const Branch& on_true, const Branch& on_false);
// An index (i32 scalar) out of range takes the last branch.
Values case_(Value index, const std::vector<Branch>& branches);
// `callee` is finished and belongs to the same module.
Values call(const Function& callee, const Values& arguments, Function& caller);
Values call(const Function& callee, const Values& arguments);  // at least one argument
// The compiler moves nothing across.
Values optimization_barrier(const Values& values);

}  // namespace ttpu::ir
