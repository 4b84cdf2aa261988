#include "cli/compile_train.h"

#include "cli/numbers.h"
#include "ttpu/base/error.h"

namespace ttpu::cli {

void add_train_flags(CLI::App& command, TrainFlags* flags) {
  const std::string group = "With --task train";
  command.add_option("--seq-len", flags->seq_len, "Tokens of a sequence")
      ->check(above_zero())
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--train-batch-size", flags->train_batch_size,
                  "Sequences of a step on all devices (0: a micro-batch on each replica)")
      ->check(zero_or_more())
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--micro-batch-size", flags->micro_batch_size,
                  "Sequences at once on each replica; their gradients are summed up to a step's")
      ->check(above_zero())
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--fsdp-size", flags->fsdp_size,
                  "Replicas that divide the state of training (0: all devices that "
                  "--data-parallel-size and --tensor-parallel-size leave)")
      ->check(zero_or_more())
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--zero-stage", flags->zero_stage,
                  "What they divide: 1 master weights and moments, 2 gradients too, 3 the weights "
                  "of each layer too; 0: nothing")
      ->check(CLI::Range(0, 3))
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--remat", flags->remat,
                  "What backward computes again: full: each layer from its input; minimal: all but "
                  "products and attention; none: nothing")
      ->check(CLI::IsMember({"full", "minimal", "none"}))
      ->capture_default_str()
      ->group(group);
}

std::vector<std::string> train_arguments(const TrainFlags& flags) {
  return {"--task",
          "train",
          "--seq-len",
          std::to_string(flags.seq_len),
          "--train-batch-size",
          std::to_string(flags.train_batch_size),
          "--micro-batch-size",
          std::to_string(flags.micro_batch_size),
          "--fsdp-size",
          std::to_string(flags.fsdp_size),
          "--zero-stage",
          std::to_string(flags.zero_stage),
          "--remat",
          flags.remat};
}

void set_step(const TrainFlags& flags, const engine::ParallelOptions& parallel, int64_t devices,
              train::TrainAotRequest* request) {
  require(parallel.pipeline_parallel_size <= 1 && !parallel.enable_expert_parallel,
          "[compile] --task train has no pipelines and no expert parallelism; leave "
          "--pipeline-parallel-size and --enable-expert-parallel out");
  request->data = std::max<int64_t>(1, parallel.data_parallel_size);
  request->tensor = std::max<int64_t>(1, parallel.tensor_parallel_size);
  const int64_t others = request->data * request->tensor;
  request->fsdp = flags.fsdp_size > 0 ? flags.fsdp_size : std::max<int64_t>(1, devices / others);
  const bool named = !parallel.strategy.empty() && parallel.strategy != "auto";
  request->strategy = named ? parallel.strategy : "sequence";
  train::StepOptions& step = request->step;
  step.seq_len = flags.seq_len;
  step.micro_batch = flags.micro_batch_size;
  step.zero_stage = static_cast<train::ZeroStage>(flags.zero_stage);
  step.remat = grad::remat_from_name(flags.remat);
  const int64_t at_once = flags.micro_batch_size * request->data * request->fsdp;
  const int64_t batch = flags.train_batch_size > 0 ? flags.train_batch_size : at_once;
  require(batch % at_once == 0,
          "[compile] --train-batch-size is {}, and {} replicas take {} sequences each at once, "
          "which does not divide it; give a multiple of {}",
          batch, request->data * request->fsdp, flags.micro_batch_size, at_once);
  step.accumulation = batch / at_once;
}

}  // namespace ttpu::cli
