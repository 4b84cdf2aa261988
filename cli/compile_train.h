// ttpu compile --task train: what it is told besides what serving is.
#pragma once

#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "ttpu/engine/engine_plan.h"
#include "ttpu/train/aot.h"

namespace ttpu::cli {

struct TrainFlags {
  int64_t seq_len = 4096;
  int64_t train_batch_size = 0;  // 0: a micro-batch on each replica
  int64_t micro_batch_size = 1;
  int64_t fsdp_size = 0;  // 0: the devices that are left
  int64_t zero_stage = 3;
  std::string remat = "full";
};

// DeepSpeed's and MaxText's names. `train_arguments` writes them for a child.
void add_train_flags(CLI::App& command, TrainFlags* flags);
std::vector<std::string> train_arguments(const TrainFlags& flags);

// Fills in what these flags say of a step, for a topology of so many devices. Throws
// kInvalidArgument for sizes that do not divide.
void set_step(const TrainFlags& flags, const engine::ParallelOptions& parallel, int64_t devices,
              train::TrainAotRequest* request);

}  // namespace ttpu::cli
