// A function and its gradient as two functions, with a policy of what the first keeps for the
// second (rematerialization: Chen et al., arXiv:1604.06174).
#pragma once

#include <string>
#include <vector>

#include "ttpu/ir/module.h"

namespace ttpu::grad {

// What is kept between the two; the rest is computed again, from the arguments on.
enum class Remat {
  kFull,     // nothing
  kMinimal,  // the results of matrix products, and of functions with a gradient of their own
  kNone,     // whatever the gradient reads
};
// "full", "minimal", "none", as MaxText has them. Throws kInvalidArgument for another.
Remat remat_from_name(const std::string& name);

struct Pullback {
  // The arguments of the function -> its results, then what is kept.
  ir::Function* forward = nullptr;
  // Arguments (all of them, `kept`), what is kept, cotangents of the results -> cotangents of
  // arguments[wanted[0]], arguments[wanted[1]], ...; zeros of those without a part in it.
  ir::Function* backward = nullptr;
  size_t kept = 0;
  std::vector<size_t> wanted;
};

// Of a finished function, which is removed from its module; calls in it are followed. `wanted`:
// places of arguments of floats. With `barrier` the compiler is kept from taking what is computed
// again from the first time: where both functions are called in one loop or none. Throws
// kUnimplemented for an operator that has no gradient.
Pullback make_pullback(ir::Function& function, std::vector<size_t> wanted, Remat remat,
                       bool barrier = false);

}  // namespace ttpu::grad
