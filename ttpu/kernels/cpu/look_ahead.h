// Guesses which weights the next call will read. In decoding, the calls of a step follow each other
// in the same order step after step, and between two of them, while one thread does what is short,
// memory rests: helpers use that time to bring in the beginning of the next weights (parallel.h).
#pragma once

#include "ttpu/kernels/cpu/parallel.h"

namespace ttpu::kernels {

// Notes that a call which reads `now` begins, after the call noted before it; returns what the call
// after it read the last time, or nothing. A wrong guess costs time and changes no result.
Reads reads_after(const Reads& now);

}  // namespace ttpu::kernels
