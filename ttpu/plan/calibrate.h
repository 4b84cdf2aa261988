// Programs whose time is known from the chip's published peak, priced like any other: what the
// estimate says of them shows how far it can be believed.
#pragma once

#include <string>
#include <vector>

#include "ttpu/plan/schedule.h"

namespace ttpu::plan {

struct CalibrationProgram {
  std::string name;
  std::string code;        // StableHLO
  int64_t partitions = 1;  // devices that it runs on
};

struct Calibration {
  std::string name;
  ScheduleCost cost;
  double peak_seconds = 0;  // at the published peak of what the program is bound by
};

// A product of two bf16 matrices [8192, 8192], a sum over 512 MiB that reads and writes them, a
// copy of as much, and, on more than one device, an all-gather to 128 MiB.
std::vector<CalibrationProgram> calibration_programs(const Slice& slice);

// Compiles them with libtpu, in this process. Throws what the plugin says.
std::vector<Calibration> calibrate(const Slice& slice);

std::string to_table(const Slice& slice, const std::vector<Calibration>& calibrations);

}  // namespace ttpu::plan
