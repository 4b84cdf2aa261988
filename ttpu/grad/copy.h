// Operators copied from one function to another of the same module.
#pragma once

#include <unordered_map>

#include "ttpu/ir/function.h"

namespace ttpu::grad {

class Copier {
 public:
  explicit Copier(ir::Function& target) : target_(target) {}

  // From now on `source` is `copy` there.
  void map(ir::Value source, ir::Value copy) { copies_[source.id()] = copy; }
  void map(const ir::Values& sources, const ir::Values& copies);
  bool has(ir::Value source) const { return copies_.contains(source.id()); }
  // Throws kInternal for a value that is not there.
  ir::Value at(ir::Value source) const;
  ir::Values at(const ir::Values& sources) const;

  // Adds a copy of `operation`, whose operands and what its regions use are there already.
  ir::Operation& copy(const ir::Operation& operation);

 private:
  ir::Region* copy(const ir::Region& region);

  ir::Function& target_;
  std::unordered_map<int32_t, ir::Value> copies_;
};

// What `operation` reads: its operands, and the values around it that its regions use.
ir::Values values_read(const ir::Operation& operation);

// Adds to `copier` whatever `values` of `source` follow from, from what is there on. Throws
// kInternal where that is an argument.
void copy_values(const ir::Function& source, const ir::Values& values, Copier& copier);

}  // namespace ttpu::grad
