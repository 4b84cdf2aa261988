// A plan for training, for people and for programs.
#include <algorithm>

#include "ttpu/plan/training.h"

namespace ttpu::plan {
namespace {

constexpr size_t kRowsShown = 12;

std::string gib(double bytes) { return fmt::format("{:.2f}", bytes / kGiB); }

std::string bound_of(const TrainRow& row) {
  return row.report ? row.report->schedule.bound : row.cost.time.bound();
}

std::string name_of(const TrainCandidate& candidate) {
  std::string name = candidate.slice.name + " " + candidate.mesh();
  if (candidate.fsdp > 1) name += fmt::format(" ZeRO-{}", candidate.zero_stage);
  if (candidate.tensor > 1) name += " " + candidate.strategy;
  return name;
}

std::string line_of(const TrainRow& row, size_t width) {
  const TrainCandidate& candidate = row.candidate;
  const std::string fits = row.fits()      ? gib(row.free_bytes) + " free"
                           : row.too_large ? "too large"
                                           : gib(-row.free_bytes) + " missing";
  std::string line =
      fmt::format("{:<{}}{:<9}{:>8}{:>9}{:>9}{:>8}{:>7}  {:<15}{:>9.3f}{:>10.0f}{:>7.1f}  {:<13}",
                  name_of(candidate), width, candidate.remat,
                  fmt::format("{} x {}", candidate.micro_batch, candidate.accumulation(row.work)),
                  gib(row.weight_bytes), gib(row.optimizer_bytes), gib(row.temporary_bytes),
                  row.compiled() ? gib(row.code_bytes) : "-", fits, row.seconds,
                  row.tokens_per_second, 100 * row.mfu, bound_of(row));
  if (row.price_per_million) line += fmt::format("{:>9.3f}", *row.price_per_million);
  line += row.compiled() ? "  compiled" : row.failure.empty() ? "  formulas" : "  failed";
  return line + "\n";
}

Json formulas_json(const TrainCost& cost) {
  return {{"weight_bytes", cost.weight_bytes},
          {"optimizer_bytes", cost.optimizer_bytes},
          {"copy_bytes", cost.copy_bytes},
          {"gradient_bytes", cost.gradient_bytes},
          {"activation_bytes", cost.activation_bytes},
          {"working_bytes", cost.working_bytes},
          {"gap_bytes", cost.gap_bytes},
          {"compute_seconds", cost.time.compute},
          {"hbm_seconds", cost.time.hbm},
          {"interconnect_seconds", cost.time.interconnect},
          {"exposed_collective_seconds", cost.exposed},
          {"seconds", cost.seconds},
          {"bound", cost.time.bound()},
          {"sent_bytes", cost.sent_bytes}};
}

Json row_json(const TrainRow& row) {
  const TrainCandidate& candidate = row.candidate;
  Json json = {{"topology", candidate.slice.name},
               {"chips", candidate.slice.chips()},
               {"devices", candidate.slice.devices()},
               {"data_parallel_size", candidate.data},
               {"fsdp_size", candidate.fsdp},
               {"tensor_parallel_size", candidate.tensor},
               {"zero_stage", candidate.zero_stage},
               {"strategy", candidate.strategy},
               {"remat", candidate.remat},
               {"train_batch_size", row.work.train_batch_size},
               {"micro_batch_size", candidate.micro_batch},
               {"gradient_accumulation_steps", candidate.accumulation(row.work)},
               {"compiled", row.compiled()},
               {"fits", row.fits()},
               {"weight_bytes", row.weight_bytes},
               {"optimizer_bytes", row.optimizer_bytes},
               {"temporary_bytes", row.temporary_bytes},
               {"code_bytes", row.code_bytes},
               {"free_bytes", row.free_bytes},
               {"step_seconds", row.seconds},
               {"tokens_per_second", row.tokens_per_second},
               {"model_flops", row.cost.model_flops},
               {"mfu", row.mfu},
               {"bound", bound_of(row)},
               {"formulas", formulas_json(row.cost)}};
  if (row.price_per_million) json["price_per_million_tokens"] = *row.price_per_million;
  if (!row.failure.empty()) json["failure"] = row.failure;
  if (row.report) json["step"] = to_json(*row.report);
  return json;
}

}  // namespace

std::string to_table(const TrainPlan& plan, const TrainRequest& request) {
  const TrainRow& first = plan.rows.front();
  const size_t shown = std::min(plan.rows.size(), kRowsShown);
  size_t width = 16;
  for (size_t i = 0; i < shown; ++i) {
    width = std::max(width, name_of(plan.rows[i].candidate).size() + 2);
  }
  std::string table = fmt::format(
      "{} on {}: training steps of {} sequences of {} tokens ({:.0f} tokens), AdamW\n\n"
      "{:<{}}{:<9}{:>8}{:>9}{:>9}{:>8}{:>7}  {:<15}{:>9}{:>10}{:>7}  {:<13}{}\n",
      request.model, request.topology, first.work.train_batch_size, first.work.seq_len,
      first.work.tokens(), "GiB of a device", width, "remat", "micro", "weights", "moments",
      "temps", "code", "fits", "step s", "tokens/s", "MFU %", "bound",
      request.price_per_chip_hour.empty() ? "" : "per M tok");
  for (size_t i = 0; i < shown; ++i) table += line_of(plan.rows[i], width);
  if (plan.rows.size() > shown) {
    table += fmt::format("and {} more (--json has them all)\n", plan.rows.size() - shown);
  }
  table += "\n";
  if (first.report) table += to_text(first.report->schedule, "step") + "\n";
  for (const std::string& sentence : plan.explanation) table += sentence + "\n";
  return table;
}

Json to_json(const TrainPlan& plan, const TrainRequest& request) {
  Json json = {{"model", request.model},
               {"topology", request.topology},
               {"task", "train"},
               {"seq_len", request.work.seq_len}};
  json["candidates"] = Json::array();
  for (const TrainRow& row : plan.rows) json["candidates"].push_back(row_json(row));
  json["explanation"] = plan.explanation;
  return json;
}

}  // namespace ttpu::plan
