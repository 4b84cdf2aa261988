// What a plan for training says of its first row.
#include <algorithm>

#include <fmt/ranges.h>

#include "ttpu/plan/training.h"

namespace ttpu::plan {
namespace {

std::string best(const TrainRow& row) {
  return fmt::format(
      "{} is best: a step of {:.0f} tokens in {:.3f} s, {:.0f} tokens/s, MFU {:.1f}% ({}).",
      row.candidate.words(), row.work.tokens(), row.seconds, row.tokens_per_second, 100 * row.mfu,
      row.compiled() ? "priced from the compiled program" : "by formulas; not compiled");
}

// Seconds in which nothing but collectives runs.
double waits(const TrainRow& row) {
  return row.report ? row.report->schedule.exposed_collective_seconds : row.cost.exposed;
}

// Why `first` stands before `other`.
std::string why(const TrainRow& first, const TrainRow& other, bool search) {
  const std::string name = other.candidate.words();
  if (other.too_large) return name + " does not fit, says the compiler.";
  if (!other.fits()) {
    return fmt::format("{} does not fit: {:.1f} GiB are missing on each device.", name,
                       -other.free_bytes / kGiB);
  }
  if (search && other.candidate.slice.chips() > first.candidate.slice.chips() &&
      !first.price_per_million) {
    return fmt::format("{} takes {} chips, {} do.", name, other.candidate.slice.chips(),
                       first.candidate.slice.chips());
  }
  const double tokens = first.work.tokens() / other.work.tokens();  // of slices, batches may differ
  const double step = tokens * other.seconds - first.seconds;
  const double waiting = tokens * waits(other) - waits(first);
  const std::string price = first.price_per_million && other.price_per_million
                                ? fmt::format(" at {:.3f} a million, not {:.3f}",
                                              *other.price_per_million, *first.price_per_million)
                                : "";
  return fmt::format(
      "{} gives {:.0f} tokens/s{}, {:.2f} times less: as many tokens take {:+.3f} s, of which "
      "waits "
      "for collectives are {:+.3f} s and the rest {:+.3f} s; {:.1f} GiB stay free, not {:.1f}.",
      name, other.tokens_per_second, price, first.tokens_per_second / other.tokens_per_second, step,
      waiting, step - waiting, other.free_bytes / kGiB, first.free_bytes / kGiB);
}

// What a step takes its time for, of a compiled row as the schedule has it.
std::string limits(const TrainRow& row) {
  if (!row.report) {
    const StepTime& time = row.cost.time;
    return fmt::format(
        "By the formulas {} limits its step: {:.3f} s of products, {:.3f} s of HBM, {:.3f} s of "
        "collectives, of which {:.3f} s are waited for; next would be {}.",
        time.bound(), time.compute, time.hbm, time.interconnect, row.cost.exposed,
        time.next_bound());
  }
  const ScheduleCost& cost = row.report->schedule;
  const StepTime time{cost.compute_limit, cost.hbm_limit, cost.ici_limit};
  return fmt::format(
      "{} limits its step: the schedule's products take {:.3f} s, its {:.1f} GiB {:.3f} s of HBM, "
      "its collectives {:.3f} s; next would be {}. The estimate of {:.3f} s is {:.2f} times that "
      "limit; {} of it waits for collectives, {} for copies.",
      time.bound(), cost.compute_limit, cost.hbm_bytes / kGiB, cost.hbm_limit, cost.ici_limit,
      time.next_bound(), cost.seconds,
      cost.limit_seconds > 0 ? cost.seconds / cost.limit_seconds : 0,
      percent(cost.exposed_collective_seconds, cost.seconds),
      percent(cost.exposed_copy_seconds, cost.seconds));
}

// Of the same mesh, by formulas: what keeping more or less would take.
std::string other_remats(const ModelFacts& facts, const TrainRequest& request,
                         const TrainRow& first) {
  const std::vector<TrainRow> rows = train_variants(facts, request, first.candidate);
  std::vector<std::string> said;
  for (const char* remat : {"none", "minimal", "full"}) {
    const TrainRow* best = nullptr;
    for (const TrainRow& row : rows) {
      if (row.candidate.remat != remat) continue;
      const bool better = best == nullptr || (row.fits() != best->fits() ? row.fits()
                                              : row.fits() ? row.seconds < best->seconds
                                                           : row.free_bytes > best->free_bytes);
      if (better) best = &row;
    }
    if (best == nullptr) continue;
    said.push_back(
        best->fits()
            ? fmt::format("remat {} takes {:.3f} s (micro-batch {}, {:.1f} GiB free)", remat,
                          best->seconds, best->candidate.micro_batch, best->free_bytes / kGiB)
            : fmt::format("for remat {} {:.1f} GiB are missing", remat, -best->free_bytes / kGiB));
  }
  return fmt::format("On that mesh, by the formulas: {}.", fmt::join(said, "; "));
}

std::string memory(const TrainRow& row) {
  const TrainCost& cost = row.cost;
  const auto gib = [](double bytes) { return fmt::format("{:.2f}", bytes / kGiB); };
  const std::string parts = fmt::format(
      "{} of bf16 weights, {} of gradients, {} of activations kept, {} of what is computed at a "
      "time and {} between buffers",
      gib(cost.copy_bytes), gib(cost.gradient_bytes), gib(cost.activation_bytes),
      gib(cost.working_bytes), gib(cost.gap_bytes));
  const std::string temporaries =
      row.compiled() ? fmt::format("{} of temporaries (by the formulas {}: {})",
                                   gib(row.temporary_bytes), gib(cost.temporary_bytes()), parts)
                     : parts;
  return fmt::format(
      "{} GiB of each device stay free beside {} of master weights, {} of AdamW's moments and {}.",
      gib(row.free_bytes), gib(row.weight_bytes), gib(row.optimizer_bytes), temporaries);
}

}  // namespace

std::vector<std::string> explain_training(const ModelFacts& facts, const TrainRequest& request,
                                          const std::vector<TrainRow>& rows, bool search) {
  const TrainRow& first = rows.front();
  std::vector<std::string> sentences = {best(first)};
  size_t losers = 0;
  for (const TrainRow& row : rows) {
    // Formulas are not compared with what the compiler says.
    const bool comparable = row.compiled() == first.compiled() || row.compiled() || row.too_large;
    if (&row == &first || !comparable) continue;
    sentences.push_back(why(first, row, search));
    if (++losers == 2) break;
  }
  sentences.push_back(limits(first));
  if (request.remat.empty()) sentences.push_back(other_remats(facts, request, first));
  sentences.push_back(memory(first));
  const std::string price = unpriced(request.price_per_chip_hour, first.candidate.slice.chip);
  if (!price.empty()) sentences.push_back(price);
  for (const TrainRow& row : rows) {
    if (row.failure.empty()) continue;
    sentences.push_back(fmt::format("Not compiled: {}: {}", row.candidate.words(), row.failure));
  }
  return sentences;
}

}  // namespace ttpu::plan
