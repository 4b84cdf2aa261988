// The search for how to train: meshes, ZeRO stages, what is computed again and micro-batches, all
// of them priced by formulas, the best few compiled.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "ttpu/plan/report.h"
#include "ttpu/plan/search.h"
#include "ttpu/plan/train_cost.h"

namespace ttpu::plan {

struct TrainRequest {
  std::string model;     // for messages
  std::string topology;  // "v6e:2x4"; "v6e:auto": any slice of v6e; "auto": any slice
  TrainWorkload work;
  // Where there is one, `auto` looks for the lowest price of a token, on chips that have a price;
  // else for the fewest chips.
  Prices price_per_chip_hour;
  // Only candidates that have these; 0, -1 and empty: any.
  int64_t data = 0;
  int64_t fsdp = 0;
  int64_t tensor = 0;
  int64_t zero_stage = -1;
  int64_t micro_batch = 0;
  std::string strategy;
  std::string remat;
  int64_t compile = 3;  // candidates
};

struct TrainRow {
  TrainCandidate candidate;
  TrainWorkload work;  // with a batch
  TrainCost cost;
  std::optional<ProgramReport> report = {};
  std::string failure = {};  // why it was not compiled, where that was tried
  bool too_large = false;    // for the device, said the compiler

  // Bytes of a device, the compiler's where it was compiled.
  double weight_bytes = 0;
  double optimizer_bytes = 0;
  double temporary_bytes = 0;  // gradients, activations, bf16 weights
  double code_bytes = 0;
  double free_bytes = 0;  // negative: what is missing

  double seconds = 0;  // of a step
  double tokens_per_second = 0;
  double mfu = 0;  // model flops of a step over what the chips could do meanwhile
  std::optional<double> price_per_million = {};  // of tokens

  bool compiled() const { return report.has_value(); }
  bool fits() const { return free_bytes >= 0 && !too_large; }
};

struct TrainPlan {
  std::vector<TrainRow> rows;  // the best first
  std::vector<std::string> explanation;

  bool compiles_failed() const { return no_compile_succeeded(rows); }
};

// Compiles the step of a candidate. Throws what went wrong.
using CompileStep = std::function<ProgramReport(const TrainCandidate&, const TrainWorkload&)>;

// `compile` may be empty: formulas alone. Throws kInvalidArgument for what the model, the slice or
// the batch do not allow; kResourceExhausted where the model fits on none of the slices, with what
// would do.
TrainPlan make_train_plan(const ModelFacts& facts, const TrainRequest& request,
                          const CompileStep& compile);

// The meshes, strategies and stages of a slice that the model and the request allow.
std::vector<TrainCandidate> train_meshes(const ModelFacts& facts, const TrainRequest& request,
                                         const Slice& slice);
// One of them with what may be computed again and micro-batches that divide the batch.
std::vector<TrainRow> train_variants(const ModelFacts& facts, const TrainRequest& request,
                                     const TrainCandidate& mesh);

// Sentences on the first row: why it is best, what limits it, what it has left.
std::vector<std::string> explain_training(const ModelFacts& facts, const TrainRequest& request,
                                          const std::vector<TrainRow>& rows, bool search);

std::string to_table(const TrainPlan& plan, const TrainRequest& request);
Json to_json(const TrainPlan& plan, const TrainRequest& request);

}  // namespace ttpu::plan
