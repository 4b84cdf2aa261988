// ttpu plan MODEL --topology v5e:2x4 | v5e:auto | auto
#include <chrono>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>

#include "cli/commands.h"
#include "cli/model_flags.h"
#include "cli/planned_weights.h"
#include "ttpu/base/file.h"
#include "ttpu/engine/capacity.h"
#include "ttpu/engine/child_compile.h"
#include "ttpu/models/registry.h"
#include "ttpu/pjrt/plugin.h"
#include "ttpu/plan/calibrate.h"
#include "ttpu/plan/depth.h"
#include "ttpu/plan/planner.h"

namespace ttpu::cli {
namespace {

struct PlanFlags {
  std::string model;
  std::string task = "serve";
  std::string hlo;  // price this instead
  double max_ttft_ms = 0;
  double max_tpot_ms = 0;
  std::string prices;
  bool calibrate = false;
  bool analytic_only = false;
  bool no_cache = false;
  bool all_layers = false;
  bool json = false;
  std::string quantization;
  std::string weights = "auto";
  std::string cache_dtype = "auto";
  int64_t timeout = 600;
  std::string layers = "unrolled";
  plan::PlanRequest request;
};

engine::ChildCompile child_of(const PlanFlags& flags, const Json& config,
                              const plan::Candidate& candidate, const plan::Workload& work,
                              const std::string& phase, int64_t first_layers) {
  // Replicas that share nothing are compiled as one of them, on the part of the slice that it has.
  const bool alone = !candidate.strategy.starts_with("expert");
  const auto slice = alone ? plan::replica_slice(candidate) : candidate.slice;
  require(slice.has_value(), "[plan] a replica on half a chip is not compiled alone");
  const std::string self = std::filesystem::read_symlink("/proc/self/exe").string();
  engine::ChildCompile child;
  child.command = {self,
                   "compile",
                   flags.model,
                   "--topology",
                   slice->name,
                   "--max-model-len",
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
                   flags.layers,
                   "--first-layers",
                   std::to_string(first_layers),
                   "--weights",
                   flags.weights,
                   "--kv-cache-dtype",
                   flags.cache_dtype,
                   "--child",
                   phase};
  if (!flags.quantization.empty()) {
    child.command.insert(child.command.end(), {"--quantization", flags.quantization});
  }
  child.timeout = std::chrono::seconds(flags.timeout);
  if (!flags.no_cache) child.identity = config.dump();
  return child;
}

plan::ProgramReport compile_one(const PlanFlags& flags, const Json& config,
                                const plan::Candidate& candidate, const plan::Workload& work,
                                const std::string& phase, int64_t first_layers) {
  const engine::ChildCompile child = child_of(flags, config, candidate, work, phase, first_layers);
  const bool kept = engine::is_kept(child);
  std::cerr << fmt::format("[plan] {} of {} {} {}{}: ", phase, candidate.slice.name,
                           candidate.mesh(), candidate.strategy,
                           first_layers > 0 ? fmt::format(", {} layers", first_layers) : "")
            << (kept ? "kept from before\n" : "compiling ... ") << std::flush;
  const auto start = std::chrono::steady_clock::now();
  const auto seconds = [&start] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  try {
    plan::ProgramReport report = engine::compile_in_child(child);
    if (!kept) std::cerr << fmt::format("{:.1f} s\n", seconds());
    return report;
  } catch (const Error&) {
    std::cerr << fmt::format("failed after {:.1f} s\n", seconds());
    throw;
  }
}

plan::CompileProgram compiler_of(const PlanFlags& flags, const Json& config,
                                 const nn::DecoderSpec& spec) {
  return
      [&](const plan::Candidate& candidate, const plan::Workload& work, const std::string& phase) {
        const auto compile = [&](int64_t layers) {
          return compile_one(flags, config, candidate, work, phase, layers);
        };
        const bool shallow = !flags.all_layers && flags.layers == "unrolled";
        const auto depths = shallow ? plan::depths_of(spec, candidate.stages) : std::nullopt;
        if (!depths) return compile(0);
        const plan::ProgramReport first = compile(depths->first);
        return plan::at_depth(first, compile(depths->second), *depths);
      };
}

void price_hlo(const PlanFlags& flags) {
  const plan::Slice slice = plan::parse_slice(flags.request.topology);
  const std::string bytes = read_file(flags.hlo);
  const bool text = bytes.find("ENTRY ") != std::string::npos;
  const plan::HloModule module = text ? plan::parse_hlo_text(bytes) : plan::parse_hlo(bytes);
  require(!module.computations.empty(),
          "[plan] {} holds no program; expected XLA's text, or a message HloModuleProto as `ttpu "
          "compile --save-hlo` writes it",
          flags.hlo);
  const plan::ScheduleCost cost = plan::schedule_cost(module, slice);
  if (flags.json) {
    std::cout << plan::to_json(cost).dump(2) << "\n";
    return;
  }
  std::cout
      << fmt::format(
             "estimate {:.3f} ms; limit {:.3f} ms ({}); {:.3f} GiB of HBM, {:.2f} Gflop, {:.1f} "
             "MiB sent\n",
             cost.seconds * 1e3, cost.limit_seconds * 1e3, cost.bound, cost.hbm_bytes / (1 << 30),
             cost.flops / 1e9, cost.ici_bytes / (1 << 20))
      << plan::to_text(cost, "program");
}

void run_plan(PlanFlags& flags) {
  require(flags.task != "train", "[plan] --task train is not available yet; plan for --task serve");
  if (!flags.hlo.empty()) return price_hlo(flags);
  if (flags.calibrate) {
    const plan::Slice slice = plan::parse_slice(flags.request.topology);
    std::cout << plan::to_table(slice, plan::calibrate(slice));
    return;
  }
  require(!flags.model.empty(),
          "[plan] no model; give a folder with config.json, a config's .json "
          "file, a .gguf file, or a hub id");
  plan::PlanRequest& request = flags.request;
  if (flags.max_ttft_ms > 0) request.max_ttft = flags.max_ttft_ms / 1e3;
  if (flags.max_tpot_ms > 0) request.max_tpot = flags.max_tpot_ms / 1e3;
  request.price_per_chip_hour = plan::parse_prices(flags.prices);
  request.model = std::filesystem::path(flags.model).stem().string();
  if (flags.layers == "scanned") {
    require(request.stages <= 1, "[plan] --layers scanned is for one stage; leave out one of them");
    request.stages = 1;
  }
  const Json config = read_config(flags.model);
  const nn::DecoderSpec spec = models::decoder_from_config(config);
  const plan::ModelFacts facts = plan::facts_of(spec);
  request.work.quantization =
      planned_quantization(config, flags.quantization, flags.weights, facts);
  request.work.cache_dtype = engine::cache_dtype_of(flags.cache_dtype);
  plan::CompileProgram compile;
  if (!flags.analytic_only && request.compile > 0) {
    const std::filesystem::path plugin = pjrt::find_plugin("tpu");
    if (!std::filesystem::exists(plugin)) {
      fail(Code::kNotFound,
           "[plan] there is no TPU plugin at '{}'; run `ttpu plugin install tpu`, or take "
           "--analytic-only, which compiles nothing",
           plugin.string());
    }
    compile = compiler_of(flags, config, spec);
  }
  const plan::Plan plan = plan::make_plan(facts, request, compile);
  if (flags.json) {
    std::cout << plan::to_json(plan, request).dump(2) << "\n";
  } else {
    std::cout << plan::to_table(plan, request);
  }
}

}  // namespace
}  // namespace ttpu::cli

void add_plan_command(CLI::App& app) {
  using ttpu::cli::PlanFlags;
  auto flags = std::make_shared<PlanFlags>();
  auto& request = flags->request;
  CLI::App* command = app.add_subcommand(
      "plan", "Which mesh and strategy serve a model best on a slice, from config.json alone");
  command->add_option(
      "model", flags->model,
      "A folder with config.json, a config's .json file, a .gguf file, or a hub id");
  command
      ->add_option("--topology", request.topology,
                   "v5e:2x4; v5e:auto: any slice of v5e; auto: any slice at all")
      ->required();
  command->add_option("--task", flags->task, "What it is for")
      ->check(CLI::IsMember({"serve", "train"}))
      ->capture_default_str();
  command->add_option("--input-len", request.work.input_len, "Tokens of a prompt")
      ->capture_default_str();
  command->add_option("--output-len", request.work.output_len, "Tokens of an answer")
      ->capture_default_str();
  command
      ->add_option("--batch,--max-num-seqs", request.work.batch,
                   "Sequences at once, on the whole slice")
      ->capture_default_str();
  command->add_option("--prefill-tokens,--max-num-batched-tokens", request.work.prefill_tokens,
                      "Tokens of one prefill step (0: a whole prompt, to 2048)");
  command->add_option("--tensor-parallel-size,--tp", request.tensor,
                      "Only meshes with so many devices to a layer (0: any)");
  command
      ->add_option("--pipeline-parallel-size,--pp", request.stages,
                   "Only pipelines of so many stages (0: any)")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--strategy", request.strategy, "Only this one")
      ->check(
          CLI::IsMember({"tensor", "sequence", "ulysses", "context", "expert", "expert_context"}));
  command->add_option("--max-ttft", flags->max_ttft_ms, "Milliseconds to the first token, at most")
      ->check(CLI::PositiveNumber);
  command->add_option("--max-tpot", flags->max_tpot_ms, "Milliseconds a token after it, at most")
      ->check(CLI::PositiveNumber);
  command->add_option("--price-per-chip-hour", flags->prices,
                      "1.2, or v5e=1.2,v6e=2.7: gives the price of a million tokens, and what auto "
                      "looks for");
  command->add_option("--compile", request.compile, "How many candidates are compiled")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_flag("--analytic-only", flags->analytic_only, "Formulas alone; compile nothing");
  command->add_option("--timeout", flags->timeout, "Seconds for one program to compile")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  ttpu::cli::add_quantization_flag(*command, &flags->quantization);
  ttpu::cli::add_cache_dtype_flag(*command, &flags->cache_dtype);
  command
      ->add_option("--weights", flags->weights,
                   "bf16: as if config.json had no quantization_config")
      ->check(CLI::IsMember({"auto", "bf16"}))
      ->capture_default_str();
  command->add_option("--layers", flags->layers, "As of `ttpu compile`")
      ->check(CLI::IsMember({"unrolled", "scanned"}))
      ->capture_default_str();
  command->add_flag("--all-layers", flags->all_layers,
                    "Compile whole programs, not two of few layers whose figures go on to all");
  command->add_flag("--no-cache", flags->no_cache, "Compile again what was compiled before");
  command->add_option("--hlo", flags->hlo,
                      "Price this compiled program (HLO as text or message) instead of a model");
  command->add_flag("--calibrate", flags->calibrate,
                    "What the estimate says of programs whose time the chip's peak gives");
  command->add_flag("--json", flags->json, "Print JSON");
  command->callback([flags] { ttpu::cli::run_plan(*flags); });
}
