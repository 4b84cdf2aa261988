// The time and memory of a step of training, from formulas alone: what can be known before anything
// is compiled, and good enough to choose what is. docs/plan.md says what they assume.
#pragma once

#include <string>

#include "ttpu/plan/analytic.h"
#include "ttpu/plan/chips.h"
#include "ttpu/plan/model_facts.h"

namespace ttpu::plan {

struct TrainWorkload {
  int64_t seq_len = 4096;        // tokens of a sequence
  int64_t train_batch_size = 0;  // sequences of a step on the whole slice; 0: see on_slice

  // With a batch: without one, a sequence for each device, and as many times that as come to
  // 262,144 tokens.
  TrainWorkload on_slice(const Slice& slice) const;
  double tokens() const;  // of a step
};

// A mesh, how state and layers are divided over it, and what is kept for the backward pass.
struct TrainCandidate {
  Slice slice;
  int64_t data = 1;    // replicas that have all of the state
  int64_t fsdp = 1;    // replicas over which state is divided
  int64_t tensor = 1;  // devices that share a layer
  // What is divided over fsdp, as DeepSpeed counts: 0 nothing, 1 master weights and moments, 2
  // gradients too, 3 the weights that layers compute with too.
  int64_t zero_stage = 0;
  std::string strategy = "sequence";  // of the devices that share a layer
  // What the backward pass finds: "full" the input of each layer, "minimal" the results of products
  // and of attention besides, "none" all that it reads. The rest it computes again.
  std::string remat = "full";
  int64_t micro_batch = 1;  // sequences at once, on each replica

  int64_t replicas() const { return data * fsdp; }
  // Micro-batches of a replica in a step (gradient_accumulation_steps).
  int64_t accumulation(const TrainWorkload& work) const {
    return work.train_batch_size / (micro_batch * replicas());
  }
  std::string mesh() const;   // "data=2, fsdp=4"
  std::string words() const;  // "v6e:2x4 with fsdp=8, ZeRO-3, remat full, micro-batch 2"
};

struct TrainCost {
  // Bytes on a device.
  double weight_bytes = 0;      // master weights, f32
  double optimizer_bytes = 0;   // AdamW's two moments, f32
  double copy_bytes = 0;        // bf16 weights: the copy of a step, or the layers that are gathered
  double gradient_bytes = 0;    // accumulators in f32, and what is on its way to them
  double activation_bytes = 0;  // kept for the backward pass
  double working_bytes = 0;     // of the layer that is computed, or of a chunk of logits
  double gap_bytes = 0;         // that buffers leave between each other

  double model_flops = 0;  // of a step on all devices, without what is computed again
  StepTime time;           // of a step, each as if nothing else were done
  double exposed = 0;      // seconds of collectives that nothing runs beside, part of the above
  double seconds = 0;      // of a step
  double sent_bytes = 0;   // by a device

  double temporary_bytes() const {
    return copy_bytes + gradient_bytes + activation_bytes + working_bytes + gap_bytes;
  }
  double total() const { return weight_bytes + optimizer_bytes + temporary_bytes(); }
};

// Of a workload with a batch that the candidate divides.
TrainCost train_cost(const ModelFacts& facts, const TrainWorkload& work,
                     const TrainCandidate& candidate);

}  // namespace ttpu::plan
