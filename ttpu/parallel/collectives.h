// Collectives over the parts of a Division, for functions that compute what one device does. All of
// them give back `x` as it is when nothing is divided.
#pragma once

#include "ttpu/ir/value.h"
#include "ttpu/parallel/mesh.h"

namespace ttpu::parallel {

// Which part this device has: an i32 scalar.
ir::Value part_index(ir::Function& function, const Mesh& mesh, const Division& division);
// The sum, or the maximum, of all parts' x, on every device.
ir::Value sum(ir::Value x, const Mesh& mesh, const Division& division);
ir::Value maximum(ir::Value x, const Mesh& mesh, const Division& division);
// The parts one after another along `axis`, on every device.
ir::Value gather(ir::Value x, int64_t axis, const Mesh& mesh, const Division& division);
// Of the sum, the device's own part along `axis`.
ir::Value sum_scatter(ir::Value x, int64_t axis, const Mesh& mesh, const Division& division);
// Of an x that is divided along `from`, the device's own part along `to`, whole along `from`.
ir::Value exchange(ir::Value x, int64_t from, int64_t to, const Mesh& mesh,
                   const Division& division);
// Of as many equal blocks along `axis` as there are parts, each is sent to the device of that part,
// and in its place comes the block that this device sent.
ir::Value trade(ir::Value x, int64_t axis, const Mesh& mesh, const Division& division);
// Of an x that all have, the device's own part along `axis`. Nothing is sent.
ir::Value own_part(ir::Value x, int64_t axis, const Mesh& mesh, const Division& division);

}  // namespace ttpu::parallel
