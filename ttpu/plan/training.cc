#include "ttpu/plan/training.h"

#include <algorithm>
#include <tuple>

#include <fmt/ranges.h>

#include "ttpu/base/error.h"

namespace ttpu::plan {
namespace {

// Below that many devices a group that divides state has no reason to be a part of the replicas.
constexpr int64_t kLeastHybridGroup = 8;
// Two that differ by less in time, and share layers alike, are not both compiled.
constexpr double kAlike = 0.01;
// How much smaller the next one is taken where the compiler says no more than that one is too
// large.
constexpr double kSmaller = 0.85;

double as_double(int64_t value) { return static_cast<double>(value); }

bool is_search(const TrainRequest& request) { return request.topology.ends_with("auto"); }

// Fills in all that follows from the formulas or, where it was compiled, from the program.
void evaluate(const TrainRequest& request, TrainRow* row) {
  const TrainCost& cost = row->cost;
  const Slice& slice = row->candidate.slice;
  row->weight_bytes = cost.weight_bytes;
  row->optimizer_bytes = cost.optimizer_bytes;
  row->temporary_bytes = cost.temporary_bytes();
  row->seconds = cost.seconds;
  if (row->report) {
    const ProgramReport& report = *row->report;
    row->weight_bytes = as_double(report.weight_bytes + report.padding_bytes);
    row->optimizer_bytes = as_double(report.optimizer_bytes);
    row->temporary_bytes = as_double(report.temporary_bytes + report.output_bytes);
    row->code_bytes = as_double(report.code_bytes);
    row->seconds = report.schedule.seconds > 0 ? report.schedule.seconds : report.estimate.seconds;
  }
  row->free_bytes = usable_hbm(slice.chip) - row->weight_bytes - row->optimizer_bytes -
                    row->temporary_bytes - row->code_bytes;
  row->tokens_per_second = row->work.tokens() / row->seconds;
  row->mfu = cost.model_flops / (row->seconds * as_double(slice.devices()) * slice.chip.bf16_flops);
  row->price_per_million =
      price_per_million(request.price_per_chip_hour, slice, row->tokens_per_second);
}

// Those that fit first; where slices are searched, the cheapest of them (by the price of a token,
// or the fewest chips); then the most tokens, and the most room.
void rank(std::vector<TrainRow>* rows, bool search) {
  const auto key = [search](const TrainRow& row) {
    const double cost = row.price_per_million.value_or(as_double(row.candidate.slice.chips()));
    return std::tuple(!row.fits(), search && row.fits() ? cost : 0,
                      row.fits() ? -row.tokens_per_second : 0, -row.free_bytes);
  };
  std::stable_sort(rows->begin(), rows->end(),
                   [&](const TrainRow& a, const TrainRow& b) { return key(a) < key(b); });
}

void check_request(const ModelFacts& facts, const TrainRequest& request) {
  constexpr int64_t kMost = int64_t{1} << 24;
  const TrainWorkload& work = request.work;
  require(work.seq_len > 0, "[plan] sequences of {} tokens; give 1 or more for --seq-len",
          work.seq_len);
  require(work.seq_len <= facts.max_positions,
          "[plan] --seq-len is {}, the model allows {}; lower it", work.seq_len,
          facts.max_positions);
  require(work.train_batch_size >= 0 && work.train_batch_size <= kMost,
          "[plan] --train-batch-size is {}; give 1 to {}, or 0 for about 262,144 tokens",
          work.train_batch_size, kMost);
  require(request.zero_stage <= 0 || request.fsdp != 1,
          "[plan] --zero-stage {} divides state over replicas and --fsdp-size 1 leaves one; leave "
          "one of them out, or take --zero-stage 0",
          request.zero_stage);
  require(request.zero_stage != 0 || request.fsdp <= 1,
          "[plan] --zero-stage 0 divides no state, --fsdp-size {} replicas do; leave one of them "
          "out, or take --zero-stage 1, 2 or 3",
          request.fsdp);
}

// Of one slice, where what was asked for is impossible on it.
void check_mesh(const ModelFacts& facts, const TrainRequest& request, const Slice& slice) {
  if (request.tensor > 0) check_tensor_size(facts, slice, request.tensor);
  const int64_t devices = slice.devices();
  const int64_t asked = std::max<int64_t>(1, request.data) * std::max<int64_t>(1, request.fsdp) *
                        std::max<int64_t>(1, request.tensor);
  const bool all = request.data > 0 && request.fsdp > 0 && request.tensor > 0;
  require(devices % asked == 0 && (!all || asked == devices),
          "[plan] --data-parallel-size, --fsdp-size and --tensor-parallel-size come to {} devices, "
          "{} has {}; their product must be that, or divide it where one is left out",
          asked, slice.name, devices);
  require(request.zero_stage <= 0 || devices > std::max<int64_t>(1, request.tensor),
          "[plan] --zero-stage {} divides state over replicas, and {} has one{}; take a larger "
          "slice{} or --zero-stage 0",
          request.zero_stage, slice.name,
          request.tensor > 1 ? fmt::format(" of {} devices", request.tensor) : "",
          request.tensor > 1 ? ", a smaller --tensor-parallel-size" : "");
}

std::vector<std::string> mesh_names(const std::vector<TrainCandidate>& meshes) {
  constexpr size_t kShown = 8;
  std::vector<std::string> names;
  for (const TrainCandidate& one : meshes) {
    const std::string name = one.mesh();
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  }
  if (names.size() > kShown) {
    names.resize(kShown);
    names.emplace_back("...");
  }
  return names;
}

TrainRequest without_wishes(const TrainRequest& request) {
  TrainRequest all;
  all.model = request.model;
  all.topology = request.topology;
  all.work = request.work;
  return all;
}

// Nothing is left to plan: because of the mesh, the batch, or the sequences.
[[noreturn]] void refuse_all(const ModelFacts& facts, const TrainRequest& request,
                             const std::vector<Slice>& slices) {
  std::optional<TrainCandidate> fewest;  // replicas
  for (const Slice& slice : slices) {
    for (const TrainCandidate& mesh : train_meshes(facts, request, slice)) {
      if (!fewest || mesh.replicas() < fewest->replicas()) fewest = mesh;
    }
  }
  if (!fewest) {
    const auto meshes = train_meshes(facts, without_wishes(request), slices.back());
    fail(Code::kInvalidArgument,
         "[plan] no mesh of {} is what the flags ask for; {} may be divided as {}",
         request.topology, slices.back().name, fmt::join(mesh_names(meshes), "; "));
  }
  const int64_t micro = std::max<int64_t>(1, request.micro_batch);
  const int64_t unit = fewest->replicas() * micro;
  const int64_t batch = request.work.on_slice(fewest->slice).train_batch_size;
  require(batch % unit == 0,
          "[plan] a batch of {} sequences does not divide into micro-batches of {} for each of {} "
          "replicas; give a --train-batch-size that {} divides, such as {}",
          batch, micro, fewest->replicas(), unit, (batch + unit - 1) / unit * unit);
  fail(
      Code::kInvalidArgument,
      "[plan] micro-batches of {} sequences of {} tokens do not divide by tokens among the devices "
      "that share a layer ({}); give a --seq-len that these divide",
      micro, request.work.seq_len, fewest->tensor);
}

// The best variant of a mesh, by formulas.
std::optional<TrainRow> best_of(const ModelFacts& facts, const TrainRequest& request,
                                const TrainCandidate& mesh) {
  std::vector<TrainRow> rows = train_variants(facts, request, mesh);
  if (rows.empty()) return std::nullopt;
  rank(&rows, false);
  return rows.front();
}

std::vector<TrainRow> rows_of(const ModelFacts& facts, const TrainRequest& request,
                              const Slice& slice) {
  std::vector<TrainRow> rows;
  for (const TrainCandidate& mesh : train_meshes(facts, request, slice)) {
    if (auto row = best_of(facts, request, mesh)) rows.push_back(std::move(*row));
  }
  return rows;
}

std::optional<TrainRow> best_on(const ModelFacts& facts, const TrainRequest& request,
                                const Slice& slice) {
  std::vector<TrainRow> rows = rows_of(facts, request, slice);
  rank(&rows, false);
  if (rows.empty() || !rows.front().fits()) return std::nullopt;
  return rows.front();
}

// The smallest slice of each chip that would do, whatever mesh it takes.
std::string slices_that_train(const ModelFacts& facts, const TrainRequest& request) {
  std::vector<std::string> found;
  for (const Chip& chip : chips()) {
    for (const std::string& name : known_slices(chip)) {
      const auto row = best_on(facts, without_wishes(request), parse_slice(name));
      if (!row) continue;
      const std::string stage =
          row->candidate.fsdp > 1 ? fmt::format(", ZeRO-{}", row->candidate.zero_stage) : "";
      found.push_back(fmt::format("{} ({}{})", name, row->candidate.mesh(), stage));
      break;
    }
  }
  return found.empty() ? "none of the slices that are known"
                       : fmt::format("{}", fmt::join(found, ", "));
}

// What else would do on the slice itself: other flags, shorter sequences.
std::string here_would_do(const ModelFacts& facts, TrainRequest request, const Slice& slice) {
  constexpr int64_t kShortest = 128;
  request = without_wishes(request);
  if (const auto row = best_on(facts, request, slice)) {
    return fmt::format("; here {} would fit, without the flags that exclude it",
                       row->candidate.words());
  }
  while (request.work.seq_len > kShortest) {
    request.work.seq_len /= 2;
    if (best_on(facts, request, slice)) {
      return fmt::format("; with --seq-len {} it would fit here", request.work.seq_len);
    }
  }
  return "; no sequences are short enough here";
}

[[noreturn]] void refuse(const ModelFacts& facts, const TrainRequest& request,
                         const TrainRow& best) {
  const TrainCost& cost = best.cost;
  const double usable = usable_hbm(best.candidate.slice.chip);
  fail(Code::kResourceExhausted,
       "[plan] {} does not train on {}: {}, a device needs {:.1f} GiB (master weights {:.1f}, "
       "moments {:.1f}, bf16 weights {:.1f}, gradients {:.1f}, activations {:.1f}, gaps {:.1f}) "
       "and has {:.1f}: "
       "{:.1f} GiB are missing. What would do: {}{}",
       request.model, request.topology, best.candidate.words(), cost.total() / kGiB,
       cost.weight_bytes / kGiB, cost.optimizer_bytes / kGiB, cost.copy_bytes / kGiB,
       cost.gradient_bytes / kGiB, (cost.activation_bytes + cost.working_bytes) / kGiB,
       cost.gap_bytes / kGiB, usable / kGiB, -best.free_bytes / kGiB,
       slices_that_train(facts, request), here_would_do(facts, request, best.candidate.slice));
}

void compile_row(const TrainRequest& request, const CompileStep& compile, TrainRow* row) {
  try {
    row->report = compile(row->candidate, row->work);
  } catch (const Error& error) {
    row->failure = error.what();
    row->too_large = error.code() == Code::kResourceExhausted;
  }
  evaluate(request, row);
}

// Of a mesh whose best variant is too large for the compiler, the best that is smaller by what was
// missing, or by a part where that was not told.
std::optional<TrainRow> smaller_variant(const ModelFacts& facts, const TrainRequest& request,
                                        const TrainRow& row) {
  const double most =
      row.compiled() ? row.cost.total() + row.free_bytes : kSmaller * row.cost.total();
  std::vector<TrainRow> rows = train_variants(facts, request, row.candidate);
  std::erase_if(rows, [&](const TrainRow& one) { return one.cost.total() > most; });
  if (rows.empty()) return std::nullopt;
  rank(&rows, false);
  return rows.front();
}

// Whether what was compiled tells enough of `row`: it shares layers alike, and by the formulas
// takes as long, or (`any_time`) whatever it takes, and even where it failed.
bool is_told(const std::vector<TrainRow>& rows, const TrainRow& row, bool any_time) {
  return std::any_of(rows.begin(), rows.end(), [&](const TrainRow& other) {
    const bool failed = any_time && !other.failure.empty() && !other.too_large;
    return (failed || (other.compiled() && other.fits())) &&
           other.candidate.slice.name == row.candidate.slice.name &&
           other.candidate.tensor == row.candidate.tensor &&
           other.candidate.strategy == row.candidate.strategy &&
           (any_time || std::abs(other.cost.seconds / row.cost.seconds - 1) < kAlike);
  });
}

// The best of each way to share layers first, then what differs in time.
void compile_best(const ModelFacts& facts, const TrainRequest& request, const CompileStep& compile,
                  std::vector<TrainRow>* rows) {
  // What is found too large is found so at once, and does not stand for another.
  int64_t left = request.compile;
  int64_t tries = 2 * request.compile;
  for (const bool any_time : {true, false}) {
    for (size_t i = 0; i < rows->size() && left > 0 && tries > 0; ++i) {
      const bool tried = rows->at(i).compiled() || !rows->at(i).failure.empty();
      if (tried || !rows->at(i).fits() || is_told(*rows, rows->at(i), any_time)) continue;
      compile_row(request, compile, &rows->at(i));
      const TrainRow& row = rows->at(i);
      --tries;
      if (!row.too_large) --left;
      if (row.fits() || (!row.compiled() && !row.too_large)) continue;
      if (auto smaller = smaller_variant(facts, request, row)) {
        rows->insert(rows->begin() + static_cast<std::ptrdiff_t>(i) + 1, std::move(*smaller));
      }
    }
  }
}

}  // namespace

std::vector<TrainCandidate> train_meshes(const ModelFacts& facts, const TrainRequest& request,
                                         const Slice& slice) {
  std::vector<TrainCandidate> found;
  const auto add = [&](TrainCandidate one) {
    const bool asked = request.data > 0 || request.fsdp > 0;
    const bool hybrid = one.data > 1 && one.fsdp > 1;
    const bool sensible = !hybrid || (one.zero_stage == 3 && one.fsdp >= kLeastHybridGroup);
    if (!asked && !sensible) return;
    if (request.data > 0 && one.data != request.data) return;
    if (request.fsdp > 0 && one.fsdp != request.fsdp) return;
    if (request.zero_stage >= 0 && one.zero_stage != request.zero_stage) return;
    found.push_back(std::move(one));
  };
  for (const int64_t tensor : tensor_sizes(facts, slice.devices())) {
    if (request.tensor > 0 && tensor != request.tensor) continue;
    // `tensor` is what `sequence` is with more memory and waits.
    const std::string strategy =
        tensor > 1 && !request.strategy.empty() ? request.strategy : "sequence";
    const int64_t replicas = slice.devices() / tensor;
    for (int64_t fsdp = 1; fsdp <= replicas; ++fsdp) {
      if (replicas % fsdp != 0) continue;
      const int64_t first = fsdp == 1 ? 0 : 1;
      const int64_t last = fsdp == 1 ? 0 : 3;
      for (int64_t stage = first; stage <= last; ++stage) {
        add({slice, replicas / fsdp, fsdp, tensor, stage, strategy});
      }
    }
  }
  return found;
}

std::vector<TrainRow> train_variants(const ModelFacts& facts, const TrainRequest& request,
                                     const TrainCandidate& mesh) {
  std::vector<TrainRow> rows;
  const TrainWorkload work = request.work.on_slice(mesh.slice);
  if (work.train_batch_size % mesh.replicas() != 0) return rows;
  const int64_t own = work.train_batch_size / mesh.replicas();
  std::vector<int64_t> micro_batches;
  if (request.micro_batch > 0) micro_batches = {request.micro_batch};
  for (int64_t micro = 1; micro <= own && request.micro_batch == 0; micro *= 2) {
    micro_batches.push_back(micro);
  }
  for (const int64_t micro : micro_batches) {
    if (own % micro != 0 || micro * work.seq_len % mesh.tensor != 0) continue;
    for (const char* remat : {"none", "minimal", "full"}) {
      if (!request.remat.empty() && request.remat != remat) continue;
      TrainCandidate candidate = mesh;
      candidate.remat = remat;
      candidate.micro_batch = micro;
      TrainRow row{std::move(candidate), work, {}};
      row.cost = train_cost(facts, work, row.candidate);
      evaluate(request, &row);
      rows.push_back(std::move(row));
    }
  }
  return rows;
}

TrainPlan make_train_plan(const ModelFacts& facts, const TrainRequest& request,
                          const CompileStep& compile) {
  check_request(facts, request);
  std::vector<Slice> slices = slices_of(request.topology);
  const bool search = is_search(request);
  if (search) keep_priced(request.price_per_chip_hour, request.topology, &slices);
  TrainPlan plan;
  for (const Slice& slice : slices) {
    if (!search) check_mesh(facts, request, slice);
    std::vector<TrainRow> rows = rows_of(facts, request, slice);
    std::move(rows.begin(), rows.end(), std::back_inserter(plan.rows));
  }
  if (plan.rows.empty()) refuse_all(facts, request, slices);
  rank(&plan.rows, search);
  if (!plan.rows.front().fits()) refuse(facts, request, plan.rows.front());
  if (compile) {
    compile_best(facts, request, compile, &plan.rows);
    // What was compiled stands before what was not.
    rank(&plan.rows, search);
    std::stable_partition(plan.rows.begin(), plan.rows.end(),
                          [](const TrainRow& row) { return row.compiled() && row.fits(); });
  }
  plan.explanation = explain_training(facts, request, plan.rows, search);
  return plan;
}

}  // namespace ttpu::plan
