// ttpu plan MODEL --task serve
#include <iostream>
#include <optional>

#include "cli/model_flags.h"
#include "cli/numbers.h"
#include "cli/plan_flags.h"
#include "cli/planned_weights.h"
#include "ttpu/engine/capacity.h"
#include "ttpu/models/registry.h"
#include "ttpu/plan/depth.h"
#include "ttpu/plan/planner.h"

namespace ttpu::cli {
namespace {

struct ServeFlags {
  double max_ttft_ms = 0;
  double max_tpot_ms = 0;
  bool all_layers = false;
  std::string quantization;
  std::string weights = "auto";
  std::string cache_dtype = "auto";
  std::string layers = "unrolled";
  plan::PlanRequest request;
};

engine::ChildCompile child_of(const PlanFlags& flags, const ServeFlags& serve, const Json& config,
                              const plan::Candidate& candidate, const plan::Workload& work,
                              const std::string& phase, int64_t first_layers) {
  // Replicas that share nothing are compiled as one of them, on the part of the slice that it has.
  const bool alone = !candidate.strategy.starts_with("expert");
  const auto slice = alone ? plan::replica_slice(candidate) : candidate.slice;
  require(slice.has_value(), "[plan] a replica on half a chip is not compiled alone");
  std::vector<std::string> arguments = {"--max-model-len",
                                        std::to_string(work.length()),
                                        "--batch",
                                        std::to_string(candidate.batch_of(work)),
                                        "--prefill-tokens",
                                        std::to_string(work.chunk()),
                                        "--tensor-parallel-size",
                                        std::to_string(candidate.tensor),
                                        "--pipeline-parallel-size",
                                        std::to_string(candidate.stages),
                                        "--data-parallel-size",
                                        std::to_string(alone ? 1 : candidate.data),
                                        "--strategy",
                                        candidate.strategy,
                                        "--layers",
                                        serve.layers,
                                        "--first-layers",
                                        std::to_string(first_layers),
                                        "--weights",
                                        serve.weights,
                                        "--kv-cache-dtype",
                                        serve.cache_dtype,
                                        "--child",
                                        phase};
  if (!serve.quantization.empty()) {
    arguments.insert(arguments.end(), {"--quantization", serve.quantization});
  }
  return plan_child(flags, config, slice->name, arguments);
}

plan::CompileProgram compiler_of(const PlanFlags& flags, const ServeFlags& serve,
                                 const Json& config, const nn::DecoderSpec& spec) {
  return [&](const plan::Candidate& candidate, const plan::Workload& work,
             const std::string& phase) {
    const auto compile = [&](int64_t layers) {
      const std::string what =
          fmt::format("{} of {} {} {}{}", phase, candidate.slice.name, candidate.mesh(),
                      candidate.strategy, layers > 0 ? fmt::format(", {} layers", layers) : "");
      return compile_and_tell(child_of(flags, serve, config, candidate, work, phase, layers), what);
    };
    const bool shallow = !serve.all_layers && serve.layers == "unrolled";
    const auto depths = shallow ? plan::depths_of(spec, candidate.stages) : std::nullopt;
    if (!depths) return compile(0);
    const plan::ProgramReport first = compile(depths->first);
    return plan::at_depth(first, compile(depths->second), *depths);
  };
}

void plan_serving(const PlanFlags& flags, ServeFlags& serve) {
  plan::PlanRequest& request = serve.request;
  if (serve.max_ttft_ms > 0) request.max_ttft = serve.max_ttft_ms / 1e3;
  if (serve.max_tpot_ms > 0) request.max_tpot = serve.max_tpot_ms / 1e3;
  request.model = flags.name();
  request.topology = flags.topology;
  request.tensor = flags.tensor;
  request.strategy = flags.strategy;
  request.compile = flags.compile;
  request.price_per_chip_hour = plan::parse_prices(flags.prices);
  if (serve.layers == "scanned") {
    require(request.stages <= 1, "[plan] --layers scanned is for one stage; leave out one of them");
    request.stages = 1;
  }
  const Json config = read_config(flags.model);
  const nn::DecoderSpec spec = models::decoder_from_config(config);
  const plan::ModelFacts facts = plan::facts_of(spec);
  request.work.quantization =
      planned_quantization(config, serve.quantization, serve.weights, facts);
  request.work.cache_dtype = engine::cache_dtype_of(serve.cache_dtype);
  plan::CompileProgram compile;
  if (flags.compiles()) compile = compiler_of(flags, serve, config, spec);
  const plan::Plan plan = plan::make_plan(facts, request, compile);
  if (flags.json) {
    std::cout << plan::to_json(plan, request).dump(2) << "\n";
  } else {
    std::cout << plan::to_table(plan, request);
  }
  refuse_failed_compiles(plan.compiles_failed());
  if (plan.meets_targets()) return;
  std::cout << std::flush;
  fail(Code::kFailedPrecondition,
       "[plan] nothing meets the targets; what comes closest: {}; raise --max-ttft or --max-tpot, "
       "or look at more slices with --topology auto",
       plan.rows.front().missed);
}

}  // namespace

PlanTask add_serve_task(CLI::App& group, const std::shared_ptr<const PlanFlags>& flags) {
  auto serve = std::make_shared<ServeFlags>();
  plan::PlanRequest& request = serve->request;
  group.add_option("--input-len", request.work.input_len, "Tokens of a prompt")
      ->capture_default_str();
  group.add_option("--output-len", request.work.output_len, "Tokens of an answer")
      ->capture_default_str();
  group
      .add_option("--batch,--max-num-seqs", request.work.batch,
                  "Sequences at once, on the whole slice")
      ->capture_default_str();
  group
      .add_option("--prefill-tokens,--max-num-batched-tokens", request.work.prefill_tokens,
                  "Tokens of one prefill step (0: a whole prompt, to 2048)")
      ->check(zero_or_more());
  group
      .add_option("--pipeline-parallel-size,--pp", request.stages,
                  "Only pipelines of so many stages (0: any)")
      ->check(zero_or_more());
  group.add_option("--max-ttft", serve->max_ttft_ms, "Milliseconds to the first token, at most")
      ->check(above_zero());
  group.add_option("--max-tpot", serve->max_tpot_ms, "Milliseconds a token after it, at most")
      ->check(above_zero());
  add_quantization_flag(group, &serve->quantization);
  add_cache_dtype_flag(group, &serve->cache_dtype);
  group
      .add_option("--weights", serve->weights, "bf16: as if config.json had no quantization_config")
      ->check(CLI::IsMember({"auto", "bf16"}))
      ->capture_default_str();
  group.add_option("--layers", serve->layers, "As of `ttpu compile`")
      ->check(CLI::IsMember({"unrolled", "scanned"}))
      ->capture_default_str();
  group.add_flag("--all-layers", serve->all_layers,
                 "Compile whole programs, not two of few layers whose figures go on to all");
  return [flags, serve] { plan_serving(*flags, *serve); };
}

}  // namespace ttpu::cli
