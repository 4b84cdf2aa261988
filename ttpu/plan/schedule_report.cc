// What a schedule costs, written and read.
#include "ttpu/plan/json_fields.h"
#include "ttpu/plan/schedule.h"

namespace ttpu::plan {
namespace {

// The one list of fields: for writing and for reading.
template <typename Cost, typename Visit>
void visit_fields(Cost& cost, const Visit& visit) {
  visit("estimate_seconds", cost.seconds);
  visit("cycles", cost.cycles);
  visit("cycle_seconds", cost.cycle_seconds);
  visit("unpriced_seconds", cost.unpriced_seconds);
  visit("kernel_seconds", cost.kernel_seconds);
  visit("exposed_copy_seconds", cost.exposed_copy_seconds);
  visit("exposed_collective_seconds", cost.exposed_collective_seconds);
  visit("flops", cost.flops);
  visit("int8_ops", cost.int8_ops);
  visit("fp8_flops", cost.fp8_flops);
  visit("hbm_bytes", cost.hbm_bytes);
  visit("ici_bytes", cost.ici_bytes);
  visit("compute_limit", cost.compute_limit);
  visit("hbm_limit", cost.hbm_limit);
  visit("ici_limit", cost.ici_limit);
  visit("limit_seconds", cost.limit_seconds);
  visit("bound", cost.bound);
  visit("uncounted_loops", cost.uncounted_loops);
  visit("unpriced_count", cost.unpriced_count);
}

template <typename Cost, typename Visit>
void visit_collective(Cost& cost, const Visit& visit) {
  visit("opcode", cost.opcode);
  visit("group", cost.group);
  visit("count", cost.count);
  visit("bytes", cost.bytes);
  visit("sent_bytes", cost.sent_bytes);
  visit("seconds", cost.seconds);
  visit("exposed_seconds", cost.exposed_seconds);
}

template <typename Cost, typename Visit>
void visit_kernel(Cost& cost, const Visit& visit) {
  visit("name", cost.name);
  visit("count", cost.count);
  visit("bytes", cost.bytes);
  visit("flops", cost.flops);
  visit("seconds", cost.seconds);
}

}  // namespace

Json to_json(const ScheduleCost& cost) {
  Json json = Json::object();
  visit_fields(cost, json_writer(&json));
  json["collectives"] = Json::array();
  for (const CollectiveCost& one : cost.collectives) {
    visit_collective(one, json_writer(&json["collectives"].emplace_back(Json::object())));
  }
  json["kernels"] = Json::array();
  for (const KernelCost& one : cost.kernels) {
    visit_kernel(one, json_writer(&json["kernels"].emplace_back(Json::object())));
  }
  return json;
}

ScheduleCost schedule_from_json(const Json& json) {
  const JsonView view(json, "cost of a schedule");
  ScheduleCost cost;
  visit_fields(cost, json_reader(view));
  for (const Json& one : json.value("collectives", Json::array())) {
    visit_collective(cost.collectives.emplace_back(), json_reader(JsonView(one, "collective")));
  }
  for (const Json& one : json.value("kernels", Json::array())) {
    visit_kernel(cost.kernels.emplace_back(), json_reader(JsonView(one, "kernel")));
  }
  return cost;
}

std::string to_text(const ScheduleCost& cost, const std::string& phase) {
  constexpr double kMiB = 1 << 20;
  std::string text;
  for (const CollectiveCost& one : cost.collectives) {
    text += fmt::format(
        "{}: {:.0f} {} over {} devices: {:.2f} MiB each, {:.2f} MiB sent in all, {:.1f} us, {:.1f} "
        "us "
        "of them exposed\n",
        phase, one.count, one.opcode, one.group, one.bytes / one.count / kMiB,
        one.sent_bytes / kMiB, one.seconds * 1e6, one.exposed_seconds * 1e6);
  }
  for (const KernelCost& one : cost.kernels) {
    text += fmt::format(
        "{}: {:.0f} of the kernel {}: {:.2f} MiB, {:.2f} Gflop, {:.1f} us by its bytes and flops\n",
        phase, one.count, one.name, one.bytes / kMiB, one.flops / 1e9, one.seconds * 1e6);
  }
  return text;
}

}  // namespace ttpu::plan
