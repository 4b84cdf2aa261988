// Changes of the element type.
#pragma once

#include "ttpu/ir/value.h"

namespace ttpu::ir {

// Does nothing when x has that dtype.
Value convert(Value x, DType dtype);
// Reinterprets bits. From wide to narrow a last dimension is added, from narrow to wide it goes.
Value bitcast_convert(Value x, DType dtype);
// Rounds to a format of so many bits, keeping the dtype.
Value reduce_precision(Value x, int exponent_bits, int mantissa_bits);

}  // namespace ttpu::ir
