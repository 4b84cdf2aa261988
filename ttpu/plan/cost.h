// What a program costs: counted from the program itself, and set against a chip's limits (the
// roofline model: Williams, Waterman, Patterson 2009).
#pragma once

#include <span>
#include <string>

#include "ttpu/ir/module.h"
#include "ttpu/plan/chips.h"

namespace ttpu::plan {

enum class ArgumentRole { kInput, kWeight, kCache };

// Of the whole program, all devices together.
struct ProgramCost {
  double flops = 0;     // of the matrix products of bf16 and wider
  double int8_ops = 0;  // of those of integers
  double fp8_flops = 0;
  double weight_bytes = 0;  // read; of a table that is only gathered from, the rows that are taken
  double cache_read_bytes = 0;
  double cache_written_bytes = 0;
  int64_t uncounted_loops = 0;  // counted as one turn, since their number of turns is not fixed
};

// `roles`: one for each argument of `function`. Calls are followed, and what a loop does is
// multiplied by its turns (see trip_count.h).
ProgramCost program_cost(const ir::Function& function, std::span<const ArgumentRole> roles);

// On one device, in seconds.
struct StepEstimate {
  double compute_seconds = 0;
  double hbm_seconds = 0;
  double interconnect_seconds = 0;
  double seconds = 0;  // the longest of them
  std::string bound;   // "compute", "HBM" or "interconnect"
};
StepEstimate estimate_step(const Chip& chip, const Compute& compute, double hbm_bytes,
                           double ici_bytes);

}  // namespace ttpu::plan
