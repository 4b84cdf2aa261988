// A step of training compiled for TPUs and GPUs that this machine need not have.
#pragma once

#include "ttpu/base/json.h"
#include "ttpu/engine/aot.h"
#include "ttpu/train/options.h"

namespace ttpu::train {

struct TrainAotRequest {
  Json config;  // config.json
  std::string topology;
  int64_t data = 1;  // see train_mesh; together they are all devices of the topology
  int64_t fsdp = 1;
  int64_t tensor = 1;
  std::string strategy = "sequence";
  StepOptions step;
  bool kernels = true;  // of ours, where there are any
  engine::CompileWith with = {};
};

// As engine::compile_ahead, and to be run in a child process as that is. The report is of one step
// of the optimizer: its weights are the master weights, what is kept for the backward pass and the
// gradients are temporaries.
plan::ProgramReport compile_train_step(const TrainAotRequest& request);

}  // namespace ttpu::train
