// A plan for people and for programs.
#include "ttpu/plan/planner.h"

namespace ttpu::plan {
namespace {

constexpr size_t kRowsShown = 12;

std::string gib(double bytes) { return fmt::format("{:.2f}", bytes / kGiB); }

std::string bound_of(const Row& row) {
  return row.compiled() ? row.decode->schedule.bound : row.analytic.decode.bound();
}

std::string line_of(const Row& row) {
  const std::string name = fmt::format("{} {} {}", row.candidate.slice.name, row.candidate.mesh(),
                                       row.candidate.strategy);
  const std::string fits = row.fits() ? fmt::format("{} free", gib(row.free_bytes))
                                      : fmt::format("{} missing", gib(-row.free_bytes));
  std::string line =
      fmt::format("{:<38}{:>9}{:>9}{:>8}{:>7}  {:<15}{:>11}{:>11.1f}{:>10.2f}{:>10.0f}  {:<13}",
                  name, gib(row.weight_bytes), gib(row.cache_bytes), gib(row.temporary_bytes),
                  row.compiled() ? gib(row.code_bytes) : "-", fits, row.cache_tokens,
                  row.ttft * 1e3, row.tpot * 1e3, row.tokens_per_second, bound_of(row));
  if (row.price_per_million) line += fmt::format("{:>9.3f}", *row.price_per_million);
  line += row.compiled() ? "  compiled" : row.failure.empty() ? "  formulas" : "  failed";
  if (!row.missed.empty()) line += " (" + row.missed + ")";
  return line + "\n";
}

Json step_json(const StepTime& time) {
  return {{"compute_seconds", time.compute},
          {"hbm_seconds", time.hbm},
          {"interconnect_seconds", time.interconnect},
          {"seconds", time.seconds()},
          {"bound", time.bound()}};
}

Json row_json(const Row& row) {
  Json json = {{"topology", row.candidate.slice.name},
               {"chips", row.candidate.slice.chips()},
               {"devices", row.candidate.slice.devices()},
               {"tensor_parallel_size", row.candidate.tensor},
               {"pipeline_parallel_size", row.candidate.stages},
               {"data_parallel_size", row.candidate.data},
               {"strategy", row.candidate.strategy},
               {"compiled", row.compiled()},
               {"fits", row.fits()},
               {"weight_bytes", row.weight_bytes},
               {"cache_bytes", row.cache_bytes},
               {"temporary_bytes", row.temporary_bytes},
               {"code_bytes", row.code_bytes},
               {"free_bytes", row.free_bytes},
               {"cache_tokens", row.cache_tokens},
               {"ttft_seconds", row.ttft},
               {"tpot_seconds", row.tpot},
               {"tokens_per_second", row.tokens_per_second},
               {"bound", bound_of(row)},
               {"missed", row.missed}};
  if (row.price_per_million) json["price_per_million_tokens"] = *row.price_per_million;
  if (!row.failure.empty()) json["failure"] = row.failure;
  Json formulas = {{"prefill", step_json(row.analytic.prefill)},
                   {"decode", step_json(row.analytic.decode)}};
  formulas["prefill"]["sent_bytes"] = row.analytic.prefill_all_reduce_bytes;
  formulas["decode"]["sent_bytes"] = row.analytic.decode_all_reduce_bytes;
  json["formulas"] = formulas;
  if (row.compiled()) {
    json["prefill"] = to_json(*row.prefill);
    json["decode"] = to_json(*row.decode);
  }
  return json;
}

}  // namespace

std::string to_table(const Plan& plan, const PlanRequest& request) {
  const Workload& work = request.work;
  std::string table = fmt::format(
      "{} on {}: {} sequences at once of {} tokens in and {} out; {:.2f} B parameters\n\n"
      "GiB of a device{:<23}{:>9}{:>9}{:>8}{:>7}  {:<15}{:>11}{:>11}{:>10}{:>10}  {:<13}{}\n",
      request.model, request.topology, work.batch, work.input_len, work.output_len,
      plan.rows.front().analytic.parameters / 1e9, "", "weights", "cache", "temps", "code", "fits",
      "tokens of", "prompt ms", "step ms", "tokens/s", "bound",
      request.price_per_chip_hour.empty() ? "" : "  per M tok");
  table += fmt::format("{:<97}{}\n", "", "cache");
  for (size_t i = 0; i < plan.rows.size() && i < kRowsShown; ++i) table += line_of(plan.rows[i]);
  if (plan.rows.size() > kRowsShown) {
    table += fmt::format("and {} more (--json has them all)\n", plan.rows.size() - kRowsShown);
  }
  table += "\n";
  const Row& first = plan.rows.front();
  if (first.compiled()) {
    table +=
        to_text(first.prefill->schedule, "prefill") + to_text(first.decode->schedule, "decode");
    table += "\n";
  }
  for (const std::string& sentence : plan.explanation) table += sentence + "\n";
  return table;
}

Json to_json(const Plan& plan, const PlanRequest& request) {
  Json json = {{"model", request.model},
               {"topology", request.topology},
               {"parameters", plan.rows.front().analytic.parameters},
               {"input_len", request.work.input_len},
               {"output_len", request.work.output_len},
               {"batch", request.work.batch},
               {"prefill_tokens", request.work.chunk()}};
  json["candidates"] = Json::array();
  for (const Row& row : plan.rows) json["candidates"].push_back(row_json(row));
  json["explanation"] = plan.explanation;
  return json;
}

}  // namespace ttpu::plan
