// Random bits.
#pragma once

#include <utility>

#include "ttpu/ir/attribute.h"

namespace ttpu::ir {

// Returns (new state, bits). State: ui64[2] for kThreeFry; ui64[2] or ui64[3] for kPhilox.
std::pair<Value, Value> rng_bit_generator(Value state, Shape shape,
                                          RngAlgorithm algorithm = RngAlgorithm::kThreeFry);
// Uniform f32 in [0, 1), from the upper 23 bits of ui32 bits.
Value uniform_from_bits(Value bits);

}  // namespace ttpu::ir
