#include "ttpu/plan/chips.h"

#include "ttpu/base/error.h"

namespace ttpu::plan {

const std::vector<Chip>& chips() {
  static constexpr int64_t kGiB = int64_t{1} << 30;
  static const std::vector<Chip> kChips = {
      {"v4", 275e12, 275e12, 0, 32 * kGiB, 1200e9, 300e9},
      {"v5e", 197e12, 393e12, 0, 16 * kGiB, 819e9, 200e9},
      {"v5p", 459e12, 918e12, 459e12, 95 * kGiB, 2765e9, 600e9},
      {"v6e", 918e12, 1836e12, 918e12, 32 * kGiB, 1638e9, 400e9},
      {"tpu7x", 2307e12 / 2, 0, 4614e12 / 2, 96 * kGiB, 7380e9 / 2, 600e9 / 2},
  };
  return kChips;
}

const Chip& chip_of_topology(std::string_view topology) {
  const std::string_view name = topology.substr(0, topology.find(':'));
  std::string known;
  for (const Chip& chip : chips()) {
    if (chip.name == name) return chip;
    known += known.empty() ? chip.name : ", " + chip.name;
  }
  fail(Code::kInvalidArgument,
       "[topology] \"{}\" names no TPU that is known here; write CHIP:SHAPE with one of the chips "
       "{}, "
       "such as v5e:2x2 or v5p:2x2x1",
       topology, known);
}

}  // namespace ttpu::plan
