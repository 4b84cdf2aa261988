// What a compiled program costs as the compiler scheduled it: a pair of an estimate and a roofline.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ttpu/base/json.h"
#include "ttpu/pjrt/executable.h"
#include "ttpu/plan/chips.h"
#include "ttpu/plan/hlo.h"

namespace ttpu::plan {

// Collectives of one kind, size and group; loops counted.
struct CollectiveCost {
  std::string opcode;  // "all-reduce"
  int64_t group = 0;   // devices that meet
  double count = 0;
  double bytes = 0;            // of the result, all together
  double sent_bytes = 0;       // by a device
  double seconds = 0;          // on the links, with the latency of the hops
  double exposed_seconds = 0;  // while the device did nothing else
};

// Mosaic kernels (`tpu_custom_call`) of one name.
struct KernelCost {
  std::string name;
  double count = 0;
  double bytes = 0;
  double flops = 0;  // as the kernel's own cost estimate says; 0 where it has none
  double seconds = 0;
};

struct ScheduleCost {
  // The estimate: the schedule played through.
  double seconds = 0;
  double cycles = 0;                // the compiler's, added up
  double cycle_seconds = 0;         // the same as time
  double unpriced_seconds = 0;      // of operators without cycles, by their bytes
  double kernel_seconds = 0;        // of Mosaic kernels
  double exposed_copy_seconds = 0;  // waits for asynchronous copies
  double exposed_collective_seconds = 0;

  // The roofline: the bytes and flops of this very schedule at the chip's limits.
  double flops = 0;
  double int8_ops = 0;
  double fp8_flops = 0;
  double hbm_bytes = 0;
  double ici_bytes = 0;      // sent
  double compute_limit = 0;  // seconds
  double hbm_limit = 0;
  double ici_limit = 0;
  double limit_seconds = 0;  // the longest of the three
  std::string bound;         // "compute", "HBM" or "interconnect"

  int64_t uncounted_loops = 0;  // counted as one turn
  int64_t unpriced_count = 0;   // operators without cycles, each counted once
  std::vector<CollectiveCost> collectives;
  std::vector<KernelCost> kernels;
};

// The longest of the three limits, and its name.
void find_limit(ScheduleCost* cost);

// Plays the entry computation in the order of the schedule, for one device of `slice`.
//
// - An operator takes the compiler's `estimated_cycles` at the chip's clock. One that has none
// takes
//   its bytes at HBM bandwidth or its flops at peak, whichever is longer.
// - Asynchronous copies (copy-start, slices) move in turn, with what HBM bandwidth the operator
// that
//   runs meanwhile leaves; a wait for one is exposed.
// - Collectives take their links for as long as Links says, after what these have to send before.
//   Between start and done they run beside the rest; a synchronous one is exposed whole.
// - A Mosaic kernel takes the longer of its bytes at HBM bandwidth and its flops at peak. Its bytes
//   are operands and results in HBM, where what the result takes the place of is counted once, and
//   so is a cache that several kernels name.
// - A loop is played twice, and the second turn stands for the others; of branches the longest
// runs.
ScheduleCost schedule_cost(const HloModule& module, const Slice& slice);

// As above for what a plugin gives; all zero when the program is not given as HLO.
ScheduleCost schedule_cost(const pjrt::OptimizedProgram& program, const Slice& slice);

// A line for each collective and each kernel.
std::string to_text(const ScheduleCost& cost, const std::string& phase);

Json to_json(const ScheduleCost& cost);
// Throws kInvalidArgument when a field is missing.
ScheduleCost schedule_from_json(const Json& json);

}  // namespace ttpu::plan
