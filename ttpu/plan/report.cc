#include "ttpu/plan/report.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "ttpu/plan/gpus.h"
#include "ttpu/plan/json_fields.h"

namespace ttpu::plan {
namespace {

// The one list of fields: for writing and for reading.
template <typename Report, typename Visit>
void visit_fields(Report& report, const Visit& visit) {
  visit("phase", report.phase);
  visit("topology", report.topology);
  visit("device_kind", report.device_kind);
  visit("devices", report.devices);
  visit("tokens", report.tokens);
  visit("sequences", report.sequences);
  visit("max_model_len", report.max_model_len);
  visit("sharding", report.sharding);
  visit("hbm_bytes", report.hbm_bytes);
  visit("weight_bytes", report.weight_bytes);
  visit("optimizer_bytes", report.optimizer_bytes);
  visit("cache_bytes", report.cache_bytes);
  visit("padding_bytes", report.padding_bytes);
  visit("output_bytes", report.output_bytes);
  visit("temporary_bytes", report.temporary_bytes);
  visit("code_bytes", report.code_bytes);
  visit("total_bytes", report.total_bytes);
  visit("peak_bytes", report.peak_bytes);
  visit("free_bytes", report.free_bytes);
  visit("flops", report.flops);
  visit("int8_ops", report.int8_ops);
  visit("fp8_flops", report.fp8_flops);
  visit("weight_read_bytes", report.weight_read_bytes);
  visit("cache_read_bytes", report.cache_read_bytes);
  visit("cache_written_bytes", report.cache_written_bytes);
  visit("temporary_traffic_bytes", report.temporary_traffic_bytes);
  visit("ici_bytes", report.ici_bytes);
  visit("layers", report.layers);
  visit("uncounted_loops", report.uncounted_loops);
  visit("compiler_flops", report.compiler_flops);
  visit("compiler_bytes", report.compiler_bytes);
  visit("compiler_cycles", report.compiler_cycles);
  visit("compute_seconds", report.estimate.compute_seconds);
  visit("hbm_seconds", report.estimate.hbm_seconds);
  visit("interconnect_seconds", report.estimate.interconnect_seconds);
  visit("step_seconds", report.estimate.seconds);
  visit("bound", report.estimate.bound);
  visit("tokens_per_second", report.tokens_per_second);
  visit("compile_seconds", report.compile_seconds);
  visit("program_text_bytes", report.program_text_bytes);
}

std::string scaled(double value, double step, const std::vector<const char*>& units) {
  size_t unit = 0;
  while (std::abs(value) >= step && unit + 1 < units.size()) {
    value /= step;
    ++unit;
  }
  return fmt::format("{:.{}f} {}", value, unit == 0 ? 0 : 2, units[unit]);
}

std::string bytes(double value) { return scaled(value, 1024, {"B", "KiB", "MiB", "GiB", "TiB"}); }

std::string count(double value) {
  return value < 0 ? "not given" : scaled(value, 1000, {"", "K", "M", "G", "T", "P"});
}

std::string seconds(double value) {
  return value < 1e-3 ? fmt::format("{:.1f} us", value * 1e6)
                      : fmt::format("{:.2f} ms", value * 1e3);
}

using Cell = std::function<std::string(const ProgramReport&)>;

Cell memory(int64_t ProgramReport::*field) {
  return [field](const ProgramReport& report) { return bytes(static_cast<double>(report.*field)); };
}

Cell traffic(double ProgramReport::*field) {
  return [field](const ProgramReport& report) { return bytes(report.*field); };
}

struct TableRow {
  const char* label;
  Cell cell;
  bool of_schedule = false;                     // needs the schedule to have been read
  int64_t ProgramReport::*only_with = nullptr;  // for programs that have some of it
};

const std::vector<TableRow>& rows() {
  using R = ProgramReport;
  static const std::vector<TableRow> kRows = {
      {"HBM of a device", nullptr},
      {"  weights", memory(&R::weight_bytes)},
      {"  optimizer", memory(&R::optimizer_bytes), false, &R::optimizer_bytes},
      {"  cache", memory(&R::cache_bytes), false, &R::cache_bytes},
      {"  inputs, padding", memory(&R::padding_bytes)},
      {"  outputs", memory(&R::output_bytes)},
      {"  temporaries", memory(&R::temporary_bytes)},
      {"  code", memory(&R::code_bytes)},
      {"  total", memory(&R::total_bytes)},
      {"  free", memory(&R::free_bytes)},
      {"One step of a device", nullptr},
      {"  flops", [](const R& r) { return count(r.flops); }},
      {"  of 8 bits", [](const R& r) { return count(r.int8_ops + r.fp8_flops); }},
      {"  flops (compiler)", [](const R& r) { return count(r.compiler_flops); }},
      {"  weights read", traffic(&R::weight_read_bytes)},
      {"  cache read", traffic(&R::cache_read_bytes), false, &R::cache_bytes},
      {"  cache written", traffic(&R::cache_written_bytes), false, &R::cache_bytes},
      {"  temporaries moved", traffic(&R::temporary_traffic_bytes)},
      {"  bytes", [](const R& r) { return bytes(r.moved_bytes()); }},
      {"  bytes (compiler)",
       [](const R& r) { return r.compiler_bytes < 0 ? "not given" : bytes(r.compiler_bytes); }},
      {"  cycles (compiler)",
       [](const R& r) { return r.compiler_cycles == 0 ? "not given" : count(r.compiler_cycles); },
       true},
      {"  sent to others", traffic(&R::ici_bytes), true},
      {"Least time", nullptr},
      {"  compute", [](const R& r) { return seconds(r.estimate.compute_seconds); }},
      {"  HBM", [](const R& r) { return seconds(r.estimate.hbm_seconds); }},
      {"  interconnect", [](const R& r) { return seconds(r.estimate.interconnect_seconds); }, true},
      {"  step", [](const R& r) { return seconds(r.estimate.seconds); }},
      {"  bound", [](const R& r) { return r.estimate.bound; }},
      {"  tokens/s", [](const R& r) { return fmt::format("{:.0f}", r.tokens_per_second); }},
      {"As scheduled", nullptr, true},
      {"  estimate", [](const R& r) { return seconds(r.schedule.seconds); }, true},
      {"  waits for copies", [](const R& r) { return seconds(r.schedule.exposed_copy_seconds); },
       true},
      {"  waits for others",
       [](const R& r) { return seconds(r.schedule.exposed_collective_seconds); }, true},
      {"  flops", [](const R& r) { return count(r.schedule.flops); }, true},
      {"  of 8 bits", [](const R& r) { return count(r.schedule.int8_ops + r.schedule.fp8_flops); },
       true},
      {"  HBM bytes", [](const R& r) { return bytes(r.schedule.hbm_bytes); }, true},
      {"  limit", [](const R& r) { return seconds(r.schedule.limit_seconds); }, true},
      {"  bound", [](const R& r) { return r.schedule.bound; }, true},
      {"Compiled in", [](const R& r) { return fmt::format("{:.1f} s", r.compile_seconds); }},
  };
  return kRows;
}

}  // namespace

Json to_json(const ProgramReport& report) {
  Json json = Json::object();
  visit_fields(report, json_writer(&json));
  json["kernels"] = Json::array();
  for (const kernels::KernelChoice& choice : report.kernels) {
    json["kernels"].push_back({{"operator", choice.op},
                               {"implementation", choice.implementation},
                               {"reason", choice.reason}});
  }
  json["schedule"] = to_json(report.schedule);
  return json;
}

ProgramReport report_from_json(const Json& json) {
  const JsonView view(json, "report of a compiled program");
  ProgramReport report;
  visit_fields(report, json_reader(view));
  for (const Json& entry : json.value("kernels", Json::array())) {
    const JsonView choice(entry, "kernel of a compiled program");
    report.kernels.push_back({choice.get<std::string>("operator"),
                              choice.get<std::string>("implementation"),
                              choice.get<std::string>("reason")});
  }
  report.schedule = schedule_from_json(view.child("schedule").json());
  return report;
}

std::string to_table(const std::vector<ProgramReport>& reports) {
  if (reports.empty()) return "";
  const ProgramReport& first = reports.front();
  std::string table = fmt::format(
      "{} ({}, {} HBM each), {} device{}, sequences of up to {} tokens\n{}\n\n", first.topology,
      first.device_kind, bytes(static_cast<double>(first.hbm_bytes)), first.devices,
      first.devices == 1 ? "" : "s", first.max_model_len, first.sharding);
  table += fmt::format("{:<22}", "");
  for (const ProgramReport& report : reports) table += fmt::format("{:>16}", report.phase);
  table += fmt::format("\n{:<22}", "  tokens, sequences");
  for (const ProgramReport& report : reports) {
    table += fmt::format("{:>16}", fmt::format("{}, {}", report.tokens, report.sequences));
  }
  table += "\n";
  const bool scheduled = gpu_of_topology(first.topology) == nullptr;
  for (const auto& [label, cell, of_schedule, only_with] : rows()) {
    if (of_schedule && !scheduled) continue;
    const bool shown = only_with == nullptr ||
                       std::any_of(reports.begin(), reports.end(),
                                   [with = only_with](const auto& r) { return r.*with != 0; });
    if (!shown) continue;
    table += fmt::format("{:<22}", label);
    for (const ProgramReport& report : reports) {
      if (cell) table += fmt::format("{:>16}", cell(report));
    }
    table += "\n";
  }
  if (!scheduled) {
    table +=
        "The least time is that of the program's own flops and bytes at the device's peaks. How "
        "the "
        "compiler scheduled it, and what it sends to other devices, is priced for TPUs alone.\n";
  }
  for (const ProgramReport& report : reports) {
    if (report.uncounted_loops == 0) continue;
    table += fmt::format(
        "The {} program has {} loops whose number of turns is not fixed: one turn of each is "
        "counted.\n",
        report.phase, report.uncounted_loops);
  }
  for (const ProgramReport& report : reports) {
    for (const kernels::KernelChoice& choice : report.kernels) {
      table += fmt::format("{}: {}.\n", report.phase, to_string(choice));
    }
  }
  for (const ProgramReport& report : reports) {
    table += to_text(report.schedule, report.phase);
  }
  return table;
}

}  // namespace ttpu::plan
