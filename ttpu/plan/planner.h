// The search for a mesh and a strategy: all of them priced by formulas, the best few compiled.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "ttpu/plan/analytic.h"
#include "ttpu/plan/report.h"
#include "ttpu/plan/search.h"

namespace ttpu::plan {

struct PlanRequest {
  std::string model;     // for messages
  std::string topology;  // "v5e:2x4"; "v5e:auto": any slice of v5e; "auto": any slice
  Workload work;
  // Where there is one, `auto` looks for the lowest price of a token, on chips that have a price;
  // else for the fewest chips.
  Prices price_per_chip_hour;
  std::optional<double> max_ttft;  // seconds
  std::optional<double> max_tpot;
  int64_t tensor = 0;         // only so many devices share a layer; 0: any number
  int64_t stages = 0;         // only pipelines of so many stages; 0: any number
  std::string strategy = "";  // only this one; empty: all that make a difference
  int64_t compile = 3;        // candidates
};

struct Row {
  Candidate candidate;
  Analytic analytic;
  std::optional<ProgramReport> prefill = {}, decode = {};
  std::string failure = {};  // why it was not compiled, where that was tried

  // Bytes of a device: the compiler's where it was compiled.
  double weight_bytes = 0;
  double cache_bytes = 0;
  double temporary_bytes = 0;
  double code_bytes = 0;
  double free_bytes = 0;     // negative: what is missing
  int64_t cache_tokens = 0;  // that the whole slice holds, all in all

  double ttft = 0;                               // seconds: of one prompt, nothing before it
  double tpot = 0;                               // of a decode step of all sequences
  double tokens_per_second = 0;                  // that come out, prefills included
  std::optional<double> price_per_million = {};  // of tokens that come out
  std::string missed = {};                       // the targets that it does not meet, in words

  bool compiled() const { return prefill && decode; }
  bool fits() const { return free_bytes >= 0; }
};

struct Plan {
  std::vector<Row> rows;  // the best first
  std::vector<std::string> explanation;

  bool meets_targets() const { return rows.front().missed.empty(); }
  bool compiles_failed() const { return no_compile_succeeded(rows); }
};

// Compiles the program of a phase ("prefill", "decode") for a candidate. Throws what went wrong.
using CompileProgram =
    std::function<ProgramReport(const Candidate&, const Workload&, const std::string& phase)>;

// `compile` may be empty: formulas alone. Throws kInvalidArgument for a topology that is not known,
// for lengths that the model does not have, for a number of devices that divides neither slice nor
// heads and where the flags leave no mesh; kResourceExhausted where the model fits on none of the
// slices, with what would do.
Plan make_plan(const ModelFacts& facts, const PlanRequest& request, const CompileProgram& compile);

// The smallest slice of each chip that holds the model and its caches by formulas, with its mesh:
// "v5e:2x2 (tensor=4), ...".
std::string slices_that_fit(const ModelFacts& facts, const Workload& work);

// All of a slice that the model's heads allow. Those whose formulas could not differ are left out.
std::vector<Candidate> candidates_of(const ModelFacts& facts, const Slice& slice);

// The part of a slice that one replica of `candidate` runs on: a slice of its own shape. Nothing
// where there is none (half a chip).
std::optional<Slice> replica_slice(const Candidate& candidate);

std::string to_table(const Plan& plan, const PlanRequest& request);
Json to_json(const Plan& plan, const PlanRequest& request);

}  // namespace ttpu::plan
