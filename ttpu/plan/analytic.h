// The time and memory of serving a model, from formulas alone: what can be known before anything is
// compiled, and good enough to choose what is.
#pragma once

#include <algorithm>
#include <optional>
#include <string>

#include "ttpu/base/quantization.h"
#include "ttpu/plan/chips.h"
#include "ttpu/plan/model_facts.h"

namespace ttpu::plan {

struct Workload {
  int64_t input_len = 1024;
  int64_t output_len = 256;
  int64_t batch = 64;                             // sequences at once, on the whole slice
  int64_t prefill_tokens = 0;                     // of one prefill step; 0: a whole prompt, to 2048
  double element_bytes = 2;                       // of weights and cache
  std::optional<Quantization> quantization = {};  // of linear layers; f4E2M1FN of experts alone
  std::optional<DType> cache_dtype = {};          // of another type, scales included

  int64_t length() const { return input_len + output_len; }
  int64_t chunk() const;   // tokens of a prefill step
  int64_t chunks() const;  // prefill steps of a prompt
  // Of a number of an expert and of another linear layer, with its part of the scales.
  double expert_bytes() const;
  double linear_bytes() const;
};

// A mesh and a strategy, as `ttpu compile` takes them.
struct Candidate {
  Slice slice;
  int64_t tensor = 1;  // devices that share a layer
  int64_t data = 1;    // replicas with sequences of their own
  std::string strategy = "tensor";
  int64_t stages = 1;  // of a pipeline

  int64_t batch_of(const Workload& work) const { return (work.batch + data - 1) / data; }
  int64_t replica_devices() const { return tensor * stages; }
  // Into how many parts the tokens of a step go through the stages.
  int64_t microbatches(int64_t tokens) const;
  std::string mesh() const;  // "data=2, pipe=2, tensor=4"
};

// A step on one device. Seconds.
struct StepTime {
  double compute = 0;
  double hbm = 0;
  double interconnect = 0;
  // Compute and HBM overlap, collectives are waited for.
  double seconds() const { return std::max(compute, hbm) + interconnect; }
  std::string bound() const;       // "compute", "HBM" or "interconnect"
  std::string next_bound() const;  // the second
};

struct Analytic {
  // Bytes on a device.
  double weight_bytes = 0;
  double cache_bytes = 0;  // for the batch at full length
  double temporary_bytes = 0;
  double cache_token_bytes = 0;  // of one token more in each sequence's cache, at full length
  double parameters = 0;
  StepTime prefill;                    // of one chunk, half of the prompt before it
  StepTime decode;                     // of all sequences, at full length
  double decode_all_reduce_bytes = 0;  // sent in a step by a device
  double prefill_all_reduce_bytes = 0;

  double total() const { return weight_bytes + cache_bytes + temporary_bytes; }
};

// What a device can hold: HBM less what the runtime keeps (a fortieth: 0.4 of v5e's 16 GiB).
double usable_hbm(const Chip& chip);

// Bytes of weights on a device; of the candidate's slice nothing is asked.
double weight_bytes(const ModelFacts& facts, const Workload& work, const Candidate& candidate);

Analytic analyse(const ModelFacts& facts, const Workload& work, const Candidate& candidate);

}  // namespace ttpu::plan
