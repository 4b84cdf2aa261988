#include "ttpu/grad/copy.h"

#include <algorithm>
#include <limits>
#include <unordered_set>

#include "ttpu/base/error.h"
#include "ttpu/ir/infer.h"

namespace ttpu::grad {

void Copier::map(const ir::Values& sources, const ir::Values& copies) {
  for (size_t i = 0; i < sources.size(); ++i) map(sources[i], copies.at(i));
}

ir::Value Copier::at(ir::Value source) const {
  const auto found = copies_.find(source.id());
  if (found == copies_.end()) {
    fail(Code::kInternal, "[gradient] value {} of '{}' was not copied to '{}'", source.id(),
         source.function().name(), target_.name());
  }
  return found->second;
}

ir::Values Copier::at(const ir::Values& sources) const {
  ir::Values copies;
  for (const ir::Value source : sources) copies.push_back(at(source));
  return copies;
}

ir::Operation& Copier::copy(const ir::Operation& operation) {
  std::vector<ir::Region*> regions;
  for (const ir::Region* region : operation.regions) regions.push_back(copy(*region));
  ir::Operation& made = target_.append(operation.kind, at(operation.operands), operation.attributes,
                                       std::move(regions), ir::shapes_of(operation.results));
  map(operation.results, made.results);
  return made;
}

ir::Region* Copier::copy(const ir::Region& region) {
  return target_.build_region(ir::shapes_of(region.arguments), region.isolated,
                              [&](const ir::Values& arguments) {
                                map(region.arguments, arguments);
                                for (const ir::Operation* inner : region.operations) {
                                  if (inner->kind != ir::OpKind::kReturn) copy(*inner);
                                }
                                return at(region.yielded());
                              });
}

namespace {

// Of what the region makes, the one that was made first; ids rise.
int32_t first_made(const ir::Region& region) {
  int32_t first = std::numeric_limits<int32_t>::max();
  for (const ir::Value argument : region.arguments) first = std::min(first, argument.id());
  ir::walk(region, [&](ir::Operation& inner) {
    for (const ir::Value result : inner.results) first = std::min(first, result.id());
  });
  return first;
}

}  // namespace

ir::Values values_read(const ir::Operation& operation) {
  ir::Values read = operation.operands;
  for (const ir::Region* region : operation.regions) {
    if (region->isolated) continue;
    const int32_t first = first_made(*region);
    ir::walk(*region, [&](ir::Operation& inner) {
      for (const ir::Value operand : inner.operands) {
        if (operand.id() < first) read.push_back(operand);
      }
    });
  }
  return read;
}

void copy_values(const ir::Function& source, const ir::Values& values, Copier& copier) {
  std::unordered_set<const ir::Operation*> needed;
  ir::Values open = values;
  while (!open.empty()) {
    const ir::Value value = open.back();
    open.pop_back();
    if (copier.has(value)) continue;
    const ir::Operation* producer = value.producer();
    if (producer == nullptr) {
      fail(Code::kInternal, "[gradient] argument {} of '{}' was not copied", value.id(),
           source.name());
    }
    if (!needed.insert(producer).second) continue;
    const ir::Values read = values_read(*producer);
    open.insert(open.end(), read.begin(), read.end());
  }
  for (const ir::Operation* operation : source.body().operations) {
    if (needed.contains(operation)) copier.copy(*operation);
  }
}

}  // namespace ttpu::grad
