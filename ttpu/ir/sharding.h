// Shardy: meshes and shardings (the sdy dialect), and the two operators that hold them.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "ttpu/ir/value.h"

namespace ttpu::ir {

struct Mesh {
  std::string name;
  std::vector<std::pair<std::string, int64_t>> axes;  // name and size, major first

  int64_t num_devices() const;
  bool operator==(const Mesh&) const = default;
};

// The mesh axes that divide one dimension, major first. Open: the partitioner may add more.
struct DimSharding {
  std::vector<std::string> axes;
  bool open = false;

  bool operator==(const DimSharding&) const = default;
};

struct Sharding {
  std::string mesh;
  std::vector<DimSharding> dims;  // one for each dimension of the value
  std::vector<std::string> replicated = {};

  // `#sdy.sharding<@mesh, [{"x"}, {?}]>`; the form inside a list drops "#sdy.sharding".
  std::string to_string() const;
  std::string body_to_string() const;
  bool operator==(const Sharding&) const = default;
};

// Throws unless `sharding` fits a value of `shape` on `mesh`: known axes, each used once, one entry
// per dimension. `op` begins the message.
void check_sharding(const Sharding& sharding, const Mesh& mesh, const Shape& shape,
                    const std::string& op);

Value sharding_constraint(Value x, Sharding sharding);

// Inside `body` the values have the shapes that one device holds along `manual_axes`.
// in_shardings and out_shardings: one per operand and result, on one mesh that the Module has (see
// Function::module). `body` sees only its arguments.
Values manual_computation(const Values& operands, const std::vector<Sharding>& in_shardings,
                          const std::vector<Sharding>& out_shardings,
                          const std::vector<std::string>& manual_axes,
                          const std::function<Values(const Values&)>& body);

}  // namespace ttpu::ir
