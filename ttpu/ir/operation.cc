#include "ttpu/ir/operation.h"

#include "ttpu/base/error.h"

namespace ttpu::ir {

const Values& Region::yielded() const {
  if (operations.empty() || operations.back()->kind != OpKind::kReturn) {
    fail(Code::kFailedPrecondition, "[region] is still open: it does not end with a return");
  }
  return operations.back()->operands;
}

void walk(const Region& region, const std::function<void(Operation&)>& visit) {
  for (Operation* operation : region.operations) {
    visit(*operation);
    for (const Region* inner : operation->regions) walk(*inner, visit);
  }
}

}  // namespace ttpu::ir
