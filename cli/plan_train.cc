// ttpu plan MODEL --task train
#include <iostream>

#include "cli/compile_train.h"
#include "cli/model_flags.h"
#include "cli/numbers.h"
#include "cli/plan_flags.h"
#include "ttpu/models/registry.h"
#include "ttpu/plan/training.h"

namespace ttpu::cli {
namespace {

engine::ChildCompile child_of(const PlanFlags& flags, const Json& config,
                              const plan::TrainCandidate& candidate,
                              const plan::TrainWorkload& work) {
  std::vector<std::string> arguments =
      train_arguments({work.seq_len, work.train_batch_size, candidate.micro_batch, candidate.fsdp,
                       candidate.zero_stage, candidate.remat});
  arguments.insert(arguments.end(),
                   {"--data-parallel-size", std::to_string(candidate.data),
                    "--tensor-parallel-size", std::to_string(candidate.tensor), "--strategy",
                    candidate.strategy, "--layers", "scanned", "--child", "train"});
  return plan_child(flags, config, candidate.slice.name, arguments);
}

void plan_training(const PlanFlags& flags, plan::TrainRequest& request) {
  request.model = flags.name();
  request.topology = flags.topology;
  request.tensor = flags.tensor;
  request.strategy = flags.strategy;
  request.compile = flags.compile;
  request.price_per_chip_hour = plan::parse_prices(flags.prices);
  const bool trains =
      request.strategy.empty() || request.strategy == "sequence" || request.strategy == "tensor";
  require(trains, "[plan] --strategy {} is for serving; --task train has sequence and tensor",
          request.strategy);
  const Json config = read_config(flags.model);
  const plan::ModelFacts facts = plan::facts_of(models::decoder_from_config(config));
  plan::CompileStep compile;
  if (flags.compiles()) {
    compile = [&](const plan::TrainCandidate& candidate, const plan::TrainWorkload& work) {
      return compile_and_tell(child_of(flags, config, candidate, work), candidate.words());
    };
  }
  const plan::TrainPlan plan = plan::make_train_plan(facts, request, compile);
  if (flags.json) {
    std::cout << plan::to_json(plan, request).dump(2) << "\n";
  } else {
    std::cout << plan::to_table(plan, request);
  }
  refuse_failed_compiles(plan.compiles_failed());
}

}  // namespace

PlanTask add_train_task(CLI::App& group, const std::shared_ptr<const PlanFlags>& flags) {
  auto request = std::make_shared<plan::TrainRequest>();
  group.add_option("--seq-len", request->work.seq_len, "Tokens of a sequence")
      ->capture_default_str();
  group.add_option("--train-batch-size", request->work.train_batch_size,
                   "Sequences of a step, on the whole slice (0: one for each device, and as many "
                   "times that as come to 262,144 tokens)");
  group
      .add_option("--micro-batch-size", request->micro_batch,
                  "Only so many sequences at once on a replica (0: any power of two)")
      ->check(zero_or_more());
  group
      .add_option("--data-parallel-size,--dp", request->data,
                  "Only so many replicas that each have all of the state (0: any)")
      ->check(zero_or_more());
  group
      .add_option("--fsdp-size", request->fsdp,
                  "Only so many replicas over which state is divided (0: any)")
      ->check(zero_or_more());
  group
      .add_option("--zero-stage", request->zero_stage,
                  "Only this stage: 0 divides no state, 1 master weights and moments, 2 gradients "
                  "too, 3 all weights (FSDP) (-1: any)")
      ->check(CLI::Range(-1, 3));
  group
      .add_option("--remat", request->remat,
                  "Only this: what is computed again in the backward pass. full: all but the input "
                  "of each layer; minimal: all but results of products; none: nothing")
      ->check(CLI::IsMember({"full", "minimal", "none"}));
  return [flags, request] { plan_training(*flags, *request); };
}

}  // namespace ttpu::cli
