// What compiling one program for a topology told: memory of a device, cost, and the limit.
#pragma once

#include <string>
#include <vector>

#include "ttpu/base/json.h"
#include "ttpu/kernels/tpu/tpu_kernels.h"
#include "ttpu/plan/cost.h"
#include "ttpu/plan/schedule.h"

namespace ttpu::plan {

struct ProgramReport {
  std::string phase;  // "prefill", "decode" or "train"
  std::string topology;
  std::string device_kind;  // as the plugin names it
  int64_t devices = 0;      // over which the program is divided
  int64_t tokens = 0;       // of one step
  int64_t sequences = 0;
  int64_t max_model_len = 0;
  std::string sharding;                        // in words
  std::string layers;                          // "unrolled" or "scanned"
  std::vector<kernels::KernelChoice> kernels;  // what operators with a TPU kernel got

  // Bytes on one device.
  int64_t hbm_bytes = 0;
  int64_t weight_bytes = 0;
  int64_t optimizer_bytes = 0;  // AdamW's moments
  int64_t cache_bytes = 0;
  int64_t padding_bytes = 0;  // other arguments, and what tiling adds to all of them
  int64_t output_bytes = 0;   // that take no argument's place
  int64_t temporary_bytes = 0;
  int64_t code_bytes = 0;
  int64_t total_bytes = 0;
  int64_t peak_bytes = 0;  // the most in use at once, as the compiler counts; 0: not told
  int64_t free_bytes = 0;

  // Of one device's share of a step, counted from the program; see ProgramCost.
  double flops = 0;
  double int8_ops = 0;
  double fp8_flops = 0;
  double weight_read_bytes = 0;
  double cache_read_bytes = 0;
  double cache_written_bytes = 0;
  double temporary_traffic_bytes = 0;  // each temporary written and read once
  double ici_bytes = 0;                // sent in the collectives that the compiler left
  int64_t uncounted_loops = 0;         // counted as one turn: their figures are too low

  // The compiler's own figures; negative when it gives none.
  double compiler_flops = -1;
  double compiler_bytes = -1;
  double compiler_cycles = 0;  // see ScheduleCost; 0 when it gives none
  ScheduleCost schedule;       // of TPU programs; else all zero, as ici_bytes

  StepEstimate estimate;
  double tokens_per_second = 0;
  double compile_seconds = 0;
  int64_t program_text_bytes = 0;

  Compute compute() const { return {flops, int8_ops, fp8_flops}; }
  double moved_bytes() const {
    return weight_read_bytes + cache_read_bytes + cache_written_bytes + temporary_traffic_bytes;
  }
};

Json to_json(const ProgramReport& report);
// Throws kInvalidArgument when a field is missing.
ProgramReport report_from_json(const Json& json);

// One column a report, for people.
std::string to_table(const std::vector<ProgramReport>& reports);

}  // namespace ttpu::plan
