// One program on many devices: what each of them computes is written as a function over its own
// parts, with the collectives in it, and becomes the body of an sdy.manual_computation.
#pragma once

#include <optional>
#include <vector>

#include "ttpu/ir/module.h"
#include "ttpu/parallel/mesh.h"

namespace ttpu::parallel {

// An argument of the program or a result, as the devices have it.
struct SpmdValue {
  Placement placement;
  std::optional<int> aliases_result = {};  // of an argument: its memory becomes that of the result
};

// Adds the mesh, and "main": `body` on every device of it. Arguments and results of main are the
// whole arrays, with their shardings. Results without an entry are the same on every device.
void add_spmd_main(ir::Module& module, const Mesh& mesh, const ir::Function& body,
                   const std::vector<SpmdValue>& arguments, const std::vector<SpmdValue>& results);

}  // namespace ttpu::parallel
