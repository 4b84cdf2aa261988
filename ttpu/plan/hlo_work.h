// What one instruction of a compiled program moves and computes.
#pragma once

#include "ttpu/plan/hlo.h"

namespace ttpu::plan {

struct HloWork {
  double flops = 0;     // of matrix products in bf16 and wider
  double int8_ops = 0;  // of products of 8-bit and narrower integers
  double fp8_flops = 0;
  double hbm_bytes = 0;  // read and written, as laid out (padding counts)
  double all_bytes = 0;  // the same with what stays in the chip's own memories
  void add(const HloWork& other);
};

// Of a fusion, copy, product or other plain instruction: operands are read once (of an operand that
// is only sliced or gathered from, what is taken), results written once (of one that is updated in
// place, what is put in). Loops, calls and branches are not entered.
HloWork work_of(const HloModule& module, const HloComputation& computation,
                const HloInstruction& op);

// Of a convolution or dot; 0 for another.
double contraction_flops(const HloComputation& computation, const HloInstruction& op);

}  // namespace ttpu::plan
