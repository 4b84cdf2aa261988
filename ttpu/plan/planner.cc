#include "ttpu/plan/planner.h"

#include <algorithm>
#include <tuple>

#include <fmt/ranges.h>

#include "ttpu/base/error.h"
#include "ttpu/parallel/arrangement.h"

namespace ttpu::plan {
namespace {

double as_double(int64_t value) { return static_cast<double>(value); }

void check_request(const ModelFacts& facts, const PlanRequest& request) {
  const Workload& work = request.work;
  constexpr int64_t kMost = int64_t{1} << 20;
  require(work.input_len > 0 && work.output_len > 0,
          "[plan] lengths of {} and {} tokens; give 1 or more for --input-len and --output-len",
          work.input_len, work.output_len);
  require(work.batch > 0 && work.batch <= kMost, "[plan] a batch of {}; give 1 to {}", work.batch,
          kMost);
  require(work.length() <= facts.max_positions,
          "[plan] {} tokens in and {} out are {}, the model allows {}; lower --input-len or "
          "--output-len",
          work.input_len, work.output_len, work.length(), facts.max_positions);
  require(facts.experts > 0 || !request.strategy.starts_with("expert"),
          "[plan] --strategy {} puts whole experts on devices, and {} has no experts; leave it out",
          request.strategy, request.model);
}

void check_stages(const ModelFacts& facts, const Slice& slice, int64_t stages) {
  std::vector<int64_t> possible = {1};
  for (const int64_t count : facts.stages) {
    if (slice.devices() % count == 0) possible.push_back(count);
  }
  if (std::find(possible.begin(), possible.end(), stages) != possible.end()) return;
  fail(Code::kInvalidArgument,
       "[plan] --pipeline-parallel-size is {}; the {} layers of the model divide into so many "
       "stages that are alike and divide the {} devices of {}: {}",
       stages, facts.layers, slice.devices(), slice.name, fmt::join(possible, ", "));
}

// Fills in all that follows from the formulas or, where there are any, from the compiled programs.
void evaluate(const PlanRequest& request, Row* row) {
  const Workload& work = request.work;
  const Analytic& analytic = row->analytic;
  const Candidate& candidate = row->candidate;
  const auto step = [](const ProgramReport& report) {
    return report.schedule.seconds > 0 ? report.schedule.seconds : report.estimate.seconds;
  };
  row->weight_bytes = analytic.weight_bytes;
  row->cache_bytes = analytic.cache_bytes;
  row->temporary_bytes = analytic.temporary_bytes;
  double prefill = analytic.prefill.seconds();
  row->tpot = analytic.decode.seconds();
  if (row->compiled()) {
    row->weight_bytes = as_double(row->decode->weight_bytes + row->decode->padding_bytes);
    row->cache_bytes = as_double(row->decode->cache_bytes);
    const auto scratch = [](const ProgramReport& r) { return r.temporary_bytes + r.output_bytes; };
    row->temporary_bytes = as_double(std::max(scratch(*row->prefill), scratch(*row->decode)));
    row->code_bytes = as_double(row->prefill->code_bytes + row->decode->code_bytes);
    prefill = step(*row->prefill);
    row->tpot = step(*row->decode);
  }
  row->ttft = as_double(work.chunks()) * prefill;
  const double held = row->weight_bytes + row->temporary_bytes + row->code_bytes;
  row->free_bytes = usable_hbm(candidate.slice.chip) - held - row->cache_bytes;
  const auto batch = as_double(candidate.batch_of(work));
  const double token = row->cache_bytes / (batch * as_double(work.length()));
  const double tokens = (row->free_bytes + row->cache_bytes) / token;
  row->cache_tokens = static_cast<int64_t>(std::max(0.0, tokens)) * candidate.data;
  row->tokens_per_second = as_double(work.batch) * as_double(work.output_len) /
                           (batch * row->ttft + as_double(work.output_len) * row->tpot);
  row->price_per_million =
      price_per_million(request.price_per_chip_hour, candidate.slice, row->tokens_per_second);
  row->missed.clear();
  const auto check = [&](const char* name, double value, const std::optional<double>& most) {
    if (!most || value <= *most) return;
    // With as many digits as tell them apart.
    int digits = 1;
    std::string is = fmt::format("{:.1f}", value * 1e3);
    while (digits < 9 && std::stod(is) <= *most * 1e3) {
      is = fmt::format("{:.{}f}", value * 1e3, ++digits);
    }
    row->missed += fmt::format("{}{} is {} ms, not {:g}", row->missed.empty() ? "" : ", ", name, is,
                               *most * 1e3);
  };
  check("TTFT", row->ttft, request.max_ttft);
  check("TPOT", row->tpot, request.max_tpot);
}

// Those that fit and meet the targets first; where slices are searched, the cheapest that does (by
// the price of a token, or the fewest chips); then the most tokens.
void rank(std::vector<Row>* rows, bool search) {
  const auto key = [search](const Row& row) {
    const bool good = row.fits() && row.missed.empty();
    const double cost = row.price_per_million.value_or(as_double(row.candidate.slice.chips()));
    return std::tuple(!row.fits(), !row.missed.empty(), search && good ? cost : 0,
                      row.fits() ? -row.tokens_per_second : -row.free_bytes);
  };
  std::stable_sort(rows->begin(), rows->end(),
                   [&](const Row& a, const Row& b) { return key(a) < key(b); });
}

std::optional<Row> smallest_that_fits(const ModelFacts& facts, const PlanRequest& request,
                                      const Chip& chip) {
  for (const std::string& name : known_slices(chip)) {
    std::vector<Row> rows;
    for (const Candidate& one : candidates_of(facts, parse_slice(name))) {
      Row row{one, analyse(facts, request.work, one)};
      evaluate(request, &row);
      if (row.fits()) rows.push_back(row);
    }
    rank(&rows, false);
    if (!rows.empty()) return rows.front();
  }
  return std::nullopt;
}

[[noreturn]] void refuse(const ModelFacts& facts, const PlanRequest& request, const Row& best) {
  const double needed =
      best.weight_bytes + best.cache_bytes + best.temporary_bytes + best.code_bytes;
  const double room = needed - best.cache_bytes;
  const double usable = usable_hbm(best.candidate.slice.chip);
  const double one = best.cache_bytes / as_double(best.candidate.batch_of(request.work));
  const auto sequences = static_cast<int64_t>(std::max(0.0, (usable - room) / one));
  const std::string batch = sequences > 0 ? fmt::format("; with --batch {} it would fit here",
                                                        sequences * best.candidate.data)
                                          : "; no batch is small enough here";
  fail(Code::kResourceExhausted,
       "[plan] {} does not fit on {}: with {} a device needs {:.1f} GiB (weights {:.1f}, cache of "
       "{} "
       "sequences of {} tokens {:.1f}, temporaries {:.1f}) and has {:.1f}: {:.1f} GiB are missing. "
       "What would do: {}{}",
       request.model, request.topology, best.candidate.mesh(), needed / kGiB,
       best.weight_bytes / kGiB, request.work.batch, request.work.length(), best.cache_bytes / kGiB,
       best.temporary_bytes / kGiB, usable / kGiB, -best.free_bytes / kGiB,
       slices_that_fit(facts, request.work), batch);
}

void compile_row(const PlanRequest& request, const CompileProgram& compile, Row* row) {
  try {
    row->decode = compile(row->candidate, request.work, "decode");
    row->prefill = compile(row->candidate, request.work, "prefill");
  } catch (const Error& error) {
    row->decode.reset();
    row->failure = error.what();
  }
  evaluate(request, row);
}

std::string in_words(const Row& row) {
  return fmt::format("{} with {} ({})", row.candidate.slice.name, row.candidate.mesh(),
                     row.candidate.strategy);
}

// What a decode step takes its time for, of a compiled row as the schedule has it.
std::string limits(const Row& row) {
  if (!row.compiled()) {
    const StepTime& time = row.analytic.decode;
    return fmt::format(
        "By the formulas {} limits its decode step ({:.2f} ms of reading HBM, {:.2f} ms of "
        "computing, {:.2f} ms of collectives); next would be {}.",
        time.bound(), time.hbm * 1e3, time.compute * 1e3, time.interconnect * 1e3,
        time.next_bound());
  }
  const ScheduleCost& cost = row.decode->schedule;
  StepTime time{cost.compute_limit, cost.hbm_limit, cost.ici_limit};
  return fmt::format(
      "{} limits its decode step: the schedule's {:.2f} GiB take {:.2f} ms of HBM, its products "
      "{:.2f} "
      "ms, its collectives {:.2f} ms; next would be {}. The estimate of {:.2f} ms is {:.2f} times "
      "that "
      "limit; {} of it waits for collectives, {} for copies.",
      time.bound(), cost.hbm_bytes / kGiB, cost.hbm_limit * 1e3, cost.compute_limit * 1e3,
      cost.ici_limit * 1e3, time.next_bound(), cost.seconds * 1e3,
      cost.limit_seconds > 0 ? cost.seconds / cost.limit_seconds : 0,
      percent(cost.exposed_collective_seconds, cost.seconds),
      percent(cost.exposed_copy_seconds, cost.seconds));
}

// Why the first row stands before `other`.
std::string why(const Row& first, const Row& other, bool search) {
  if (!other.fits()) {
    return fmt::format("{} does not fit: {:.1f} GiB are missing on each device.", in_words(other),
                       -other.free_bytes / kGiB);
  }
  if (!other.missed.empty() && first.missed.empty()) {
    return fmt::format("{} misses a target: {}.", in_words(other), other.missed);
  }
  if (search && other.candidate.slice.chips() > first.candidate.slice.chips()) {
    return fmt::format("{} takes {} chips for the same.", in_words(other),
                       other.candidate.slice.chips());
  }
  const double decode = other.tpot - first.tpot;
  const double prefill = other.ttft - first.ttft;
  return fmt::format(
      "{} gives {:.0f} tokens/s, {:.2f} times less: its decode step takes {:.2f} ms ({:+.2f}), a "
      "prompt "
      "{:.1f} ms ({:+.1f}).",
      in_words(other), other.tokens_per_second,
      first.tokens_per_second / std::max(other.tokens_per_second, 1e-9), other.tpot * 1e3,
      decode * 1e3, other.ttft * 1e3, prefill * 1e3);
}

// The best pipeline beside the best of one stage, both by formulas: compiled are the best of all.
std::string pipelines(const ModelFacts& facts, const PlanRequest& request, const Plan& plan) {
  const auto best = [&](bool wanted) {
    return std::find_if(plan.rows.begin(), plan.rows.end(), [wanted](const Row& row) {
      return (row.candidate.stages > 1) == wanted && row.fits();
    });
  };
  const auto piped = best(true);
  const auto plain = best(false);
  const bool any = std::any_of(plan.rows.begin(), plan.rows.end(),
                               [](const Row& row) { return row.candidate.stages > 1; });
  if (!any) {
    return facts.stages.empty()
               ? fmt::format("No pipelines: its {} layers do not divide into alike stages.",
                             facts.layers)
               : fmt::format("No pipelines: its {} layers divide into {} alike stages.",
                             facts.layers, fmt::join(facts.stages, ", "));
  }
  if (piped == plan.rows.end()) return "No pipeline fits.";
  const auto by_formulas = [&](const Row& row) {
    Row again{row.candidate, row.analytic};
    evaluate(request, &again);
    return again;
  };
  const Row one = by_formulas(*piped);
  const std::string figures =
      fmt::format("{:.0f} tokens/s, {:.1f} ms to the first token, {:.2f} ms a step",
                  one.tokens_per_second, one.ttft * 1e3, one.tpot * 1e3);
  if (plain == plan.rows.end()) {
    return fmt::format("Only pipelines fit; by the formulas {} gives {}.", in_words(one), figures);
  }
  const Row other = by_formulas(*plain);
  return fmt::format(
      "The best pipeline is {}: by the formulas {}, where {} gives {:.0f}, {:.1f} and {:.2f}. Its "
      "stages wait for each other in {} of {} rounds of a prompt and {} of {} of a step.",
      in_words(one), figures, in_words(other), other.tokens_per_second, other.ttft * 1e3,
      other.tpot * 1e3, one.candidate.stages - 1,
      one.candidate.stages - 1 + one.candidate.microbatches(request.work.chunk()),
      one.candidate.stages - 1,
      one.candidate.stages - 1 + one.candidate.microbatches(one.candidate.batch_of(request.work)));
}

void explain(const ModelFacts& facts, const PlanRequest& request, Plan* plan, bool search) {
  const Row& first = plan->rows.front();
  plan->explanation.push_back(fmt::format(
      "{} is best: {:.0f} tokens/s, {:.1f} ms to the first token of a prompt, {:.2f} ms a step "
      "after "
      "it ({}).",
      in_words(first), first.tokens_per_second, first.ttft * 1e3, first.tpot * 1e3,
      first.compiled() ? "priced from the compiled programs" : "by formulas; not compiled"));
  if (!first.missed.empty()) {
    plan->explanation.push_back("Nothing meets the targets; it comes closest: " + first.missed +
                                ".");
  }
  for (size_t i = 1; i < plan->rows.size() && i < 3; ++i) {
    // Formulas are not compared with what the compiler says.
    if (plan->rows[i].compiled() != first.compiled() && plan->rows[i].fits()) continue;
    plan->explanation.push_back(why(first, plan->rows[i], search));
  }
  if (first.candidate.slice.devices() > 1 && request.stages == 0) {
    plan->explanation.push_back(pipelines(facts, request, *plan));
  }
  plan->explanation.push_back(limits(first));
  const double used = first.cache_bytes;
  plan->explanation.push_back(fmt::format(
      "{:.1f} GiB of each device stay free beside {:.1f} of weights and {:.1f} of cache: room for "
      "{} "
      "tokens of cache on the slice.",
      first.free_bytes / kGiB, first.weight_bytes / kGiB, used / kGiB, first.cache_tokens));
  const std::string price = unpriced(request.price_per_chip_hour, first.candidate.slice.chip);
  if (!price.empty()) plan->explanation.push_back(price);
  for (const Row& row : plan->rows) {
    if (row.failure.empty()) continue;
    plan->explanation.push_back(fmt::format("Not compiled: {} {} {}: {}", row.candidate.slice.name,
                                            row.candidate.mesh(), row.candidate.strategy,
                                            row.failure));
  }
}

// Nothing is left to plan: says why, and what the last slice would allow.
[[noreturn]] void refuse_all(const ModelFacts& facts, const PlanRequest& request,
                             const Slice& slice) {
  constexpr size_t kShown = 8;
  std::vector<std::string> meshes;
  int64_t fewest = slice.devices();  // replicas
  for (const Candidate& one : candidates_of(facts, slice)) {
    fewest = std::min(fewest, one.data);
    if (one.data > request.work.batch) continue;
    meshes.push_back(fmt::format("{} ({})", one.mesh(), one.strategy));
  }
  require(
      !meshes.empty(),
      "[plan] --batch is {}, and {} has {} replicas or more of the model, each with a sequence; "
      "raise it, or take a smaller slice",
      request.work.batch, slice.name, fewest);
  if (meshes.size() > kShown) {
    meshes.resize(kShown);
    meshes.emplace_back("...");
  }
  fail(Code::kInvalidArgument,
       "[plan] no mesh of {} is what the flags ask for; of the {} devices of {} these many can "
       "share a layer, whose heads they divide: {}; with a batch of {} it may be divided as {}",
       request.topology, slice.devices(), slice.name,
       fmt::join(tensor_sizes(facts, slice.devices()), ", "), request.work.batch,
       fmt::join(meshes, "; "));
}

}  // namespace

std::string slices_that_fit(const ModelFacts& facts, const Workload& work) {
  PlanRequest request;
  request.work = work;
  std::vector<std::string> found;
  for (const Chip& chip : chips()) {
    const auto row = smallest_that_fits(facts, request, chip);
    if (!row) continue;
    found.push_back(fmt::format("{} ({})", row->candidate.slice.name, row->candidate.mesh()));
  }
  return found.empty() ? "none of the slices that are known"
                       : fmt::format("{}", fmt::join(found, ", "));
}

std::vector<Candidate> candidates_of(const ModelFacts& facts, const Slice& slice) {
  std::vector<Candidate> found;
  const bool latent = has_latent(facts);
  std::vector<int64_t> numbers_of_stages = {1};
  numbers_of_stages.insert(numbers_of_stages.end(), facts.stages.begin(), facts.stages.end());
  for (const int64_t stages : numbers_of_stages) {
    const int64_t devices = slice.devices() / stages;
    if (devices * stages != slice.devices()) continue;
    for (const int64_t tensor : tensor_sizes(facts, devices)) {
      const auto add = [&](const std::string& strategy) {
        found.push_back({slice, tensor, devices / tensor, strategy, stages});
      };
      add("tensor");
      if (tensor > 1) add("sequence");
      if (tensor > 1 && !latent) add("ulysses");
      const bool few_kv_heads = std::any_of(
          facts.attention.begin(), facts.attention.end(),
          [&](const auto& layer) { return layer.kv_heads % tensor != 0 || layer.kv_heads == 0; });
      if (tensor > 1 && few_kv_heads) add("context");
      if (facts.experts > 0 && devices > 1 && facts.experts % devices == 0) {
        add("expert");
        if (tensor > 1) add("expert_sequence");
        if (tensor > 1 && !latent) add("expert_ulysses");
        if (tensor > 1 && few_kv_heads) add("expert_context");
      }
    }
  }
  return found;
}

std::optional<Slice> replica_slice(const Candidate& candidate) {
  const Slice& whole = candidate.slice;
  if (candidate.data == 1) return whole;
  const int64_t devices = candidate.replica_devices();
  const int64_t chips = devices / whole.chip.devices;
  if (chips * whole.chip.devices != devices) return std::nullopt;
  const auto shape = parallel::part_of_grid(whole.shape, chips);
  if (!shape) return std::nullopt;
  Slice part = whole;
  part.shape = *shape;
  part.name = fmt::format("{}:{}", whole.chip.name, fmt::join(part.shape, "x"));
  return part;
}

Plan make_plan(const ModelFacts& facts, const PlanRequest& request, const CompileProgram& compile) {
  check_request(facts, request);
  std::vector<Slice> slices = slices_of(request.topology);
  const bool search = slices.size() > 1;
  if (search) keep_priced(request.price_per_chip_hour, request.topology, &slices);
  Plan plan;
  for (const Slice& slice : slices) {
    if (request.tensor > 0 && !search) check_tensor_size(facts, slice, request.tensor);
    if (request.stages > 0 && !search) check_stages(facts, slice, request.stages);
    for (const Candidate& one : candidates_of(facts, slice)) {
      if (request.tensor > 0 && one.tensor != request.tensor) continue;
      if (request.stages > 0 && one.stages != request.stages) continue;
      if (!request.strategy.empty() && one.strategy != request.strategy) continue;
      // They are what `sequence` and `expert_sequence` do with few tokens, and never better.
      const bool outdone = one.tensor > 1 && (one.strategy == "tensor" || one.strategy == "expert");
      if (request.strategy.empty() && outdone) continue;
      // More replicas than sequences would stand idle.
      if (one.data > request.work.batch) continue;
      Row row{one, analyse(facts, request.work, one)};
      evaluate(request, &row);
      plan.rows.push_back(std::move(row));
    }
  }
  if (plan.rows.empty()) refuse_all(facts, request, slices.back());
  rank(&plan.rows, search);
  if (!plan.rows.front().fits()) refuse(facts, request, plan.rows.front());
  if (compile) {
    std::vector<Row*> chosen;
    for (Row& row : plan.rows) {
      const bool useful = row.fits() && (row.missed.empty() || !plan.rows.front().missed.empty());
      if (useful && static_cast<int64_t>(chosen.size()) < request.compile) chosen.push_back(&row);
    }
    for (Row* row : chosen) compile_row(request, compile, row);
    // What was compiled stands before what was not.
    rank(&plan.rows, search);
    std::stable_partition(plan.rows.begin(), plan.rows.end(),
                          [](const Row& row) { return row.compiled() && row.fits(); });
  }
  explain(facts, request, &plan, search);
  return plan;
}

}  // namespace ttpu::plan
