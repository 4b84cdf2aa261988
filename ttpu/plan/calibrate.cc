#include "ttpu/plan/calibrate.h"

#include <fmt/format.h>

#include "ttpu/pjrt/plugin.h"
#include "ttpu/pjrt/topology.h"

namespace ttpu::plan {
namespace {

constexpr const char* kProduct = R"(module {
  func.func @main(%a: tensor<8192x8192xbf16>, %b: tensor<8192x8192xbf16>) -> tensor<8192x8192xbf16> {
    %0 = stablehlo.dot_general %a, %b, contracting_dims = [1] x [0] : (tensor<8192x8192xbf16>, tensor<8192x8192xbf16>) -> tensor<8192x8192xbf16>
    return %0 : tensor<8192x8192xbf16>
  }
})";

constexpr const char* kPass = R"(module {
  func.func @main(%a: tensor<16384x8192xf32>) -> tensor<16384x8192xf32> {
    %0 = stablehlo.add %a, %a : tensor<16384x8192xf32>
    return %0 : tensor<16384x8192xf32>
  }
})";

constexpr const char* kCopy = R"(module {
  func.func @main(%a: tensor<16384x8192xf32>) -> tensor<16384x8192xf32> {
    return %a : tensor<16384x8192xf32>
  }
})";

constexpr const char* kGather = R"(module {{
  sdy.mesh @mesh = <["x"={}]>
  func.func @main(%a: tensor<8192x8192xbf16> {{sdy.sharding = #sdy.sharding<@mesh, [{{"x"}}, {{}}]>}}) -> (tensor<8192x8192xbf16> {{sdy.sharding = #sdy.sharding<@mesh, [{{}}, {{}}]>}}) {{
    return %a : tensor<8192x8192xbf16>
  }}
}})";

}  // namespace

std::vector<CalibrationProgram> calibration_programs(const Slice& slice) {
  std::vector<CalibrationProgram> programs = {
      {"matrix product", kProduct, 1}, {"pass over HBM", kPass, 1}, {"copy", kCopy, 1}};
  const int64_t devices = slice.devices();
  if (devices > 1) programs.push_back({"all-gather", fmt::format(kGather, devices), devices});
  return programs;
}

std::vector<Calibration> calibrate(const Slice& slice) {
  const auto plugin = pjrt::load_plugin(pjrt::find_plugin("tpu"));
  const pjrt::Topology topology = pjrt::Topology::create(plugin, slice.name);
  std::vector<Calibration> found;
  for (const CalibrationProgram& program : calibration_programs(slice)) {
    pjrt::CompileOptions options;
    options.num_partitions = static_cast<int>(program.partitions);
    const pjrt::Executable executable = topology.compile(program.code, options);
    Calibration one{program.name, schedule_cost(executable.optimized_program(), slice), 0};
    one.peak_seconds = one.cost.limit_seconds;
    found.push_back(std::move(one));
  }
  return found;
}

std::string to_table(const Slice& slice, const std::vector<Calibration>& calibrations) {
  const Chip& chip = slice.chip;
  std::string table = fmt::format(
      "{}: {:.0f} Tflop/s, HBM {:.0f} GB/s, links {:.0f} GB/s, {:.2f} GHz, of a "
      "device\n{:<16}{:>14}"
      "{:>14}{:>12}  {}\n",
      slice.name, chip.bf16_flops / 1e12, chip.hbm_bandwidth / 1e9,
      slice.ici_bandwidth(slice.devices()) / 1e9, chip.clock / 1e9, "program", "estimate us",
      "at peak us", "of peak", "bound");
  for (const Calibration& one : calibrations) {
    table += fmt::format("{:<16}{:>14.1f}{:>14.1f}{:>11.0f}%  {}\n", one.name,
                         one.cost.seconds * 1e6, one.peak_seconds * 1e6,
                         100 * one.peak_seconds / one.cost.seconds, one.cost.bound);
  }
  return table;
}

}  // namespace ttpu::plan
