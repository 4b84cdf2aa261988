// ttpu plan MODEL --topology v5e:2x4 | v5e:auto | auto [--task train]
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/model_flags.h"
#include "cli/numbers.h"
#include "cli/plan_flags.h"
#include "cli/task_flags.h"
#include "ttpu/base/file.h"
#include "ttpu/plan/calibrate.h"

namespace ttpu::cli {
namespace {

// The module keeps views of `bytes`.
plan::HloModule program_of(const std::string& file, const std::string& bytes) {
  const bool text = bytes.find("ENTRY ") != std::string::npos;
  plan::HloModule module;
  try {
    module = text ? plan::parse_hlo_text(bytes) : plan::parse_hlo(bytes);
  } catch (const Error& error) {
    // Of text it names the line; of bytes it would blame the plugin.
    if (text) fail(error.code(), "[plan] --hlo {}: {}", file, error.what());
  }
  require(!module.computations.empty(),
          "[plan] --hlo {} holds no program; expected HLO as XLA's text, or a message "
          "HloModuleProto as `ttpu compile --save-hlo` writes it",
          file);
  return module;
}

void price_hlo(const PlanFlags& flags, const std::string& file) {
  const plan::Slice slice = plan::parse_slice(flags.topology);
  const std::string bytes = read_file(file);
  const plan::HloModule module = program_of(file, bytes);
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

// A task's flags, and what it does.
struct Task {
  std::string name;
  CLI::App* group;
  PlanTask run;
};

TaskFlags flags_of(const Task& task) {
  const CLI::App* group = task.group;
  return {task.name, group->get_options([group](const CLI::Option* option) {
            return option != group->get_help_ptr();
          })};
}

void run_task(const PlanFlags& flags, const std::string& name, const std::vector<Task>& tasks) {
  require(!flags.model.empty(),
          "[plan] no model; give a folder with config.json, a config's .json "
          "file, a .gguf file, or a hub id");
  for (const Task& task : tasks) {
    if (task.name != name) continue;
    for (const Task& other : tasks) {
      if (other.name != name) refuse_flags_of("plan", flags_of(other), flags_of(task));
    }
    task.run();
  }
}

void add_common_flags(CLI::App& command, PlanFlags* flags) {
  command.add_option("model", flags->model,
                     "A folder with config.json, a config's .json file, a .gguf file, or a hub id");
  command
      .add_option("--topology", flags->topology,
                  "v5e:2x4; v5e:auto: any slice of v5e; auto: any slice at all")
      ->required();
  command
      .add_option("--tensor-parallel-size,--tp", flags->tensor,
                  "Only meshes with so many devices to a layer (0: any)")
      ->check(zero_or_more());
  command.add_option("--strategy", flags->strategy, "Only this one; to train: sequence or tensor")
      ->check(CLI::IsMember(strategy_names()));
  command.add_option("--price-per-chip-hour", flags->prices,
                     "1.2, or v5e=1.2,v6e=2.7: gives the price of a million tokens, and what auto "
                     "looks for");
  command.add_option("--compile", flags->compile, "How many candidates are compiled")
      ->check(zero_or_more())
      ->capture_default_str();
  command.add_flag("--analytic-only", flags->analytic_only, "Formulas alone; compile nothing");
  command.add_option("--timeout", flags->timeout, "Seconds for one program to compile")
      ->check(above_zero())
      ->capture_default_str();
  command.add_flag("--no-cache", flags->no_cache, "Compile again what was compiled before");
  command.add_flag("--json", flags->json, "Print JSON");
}

}  // namespace
}  // namespace ttpu::cli

void add_plan_command(CLI::App& app) {
  namespace cli = ttpu::cli;
  auto flags = std::make_shared<cli::PlanFlags>();
  auto name = std::make_shared<std::string>("serve");
  auto hlo = std::make_shared<std::string>();
  auto calibrate = std::make_shared<bool>(false);
  CLI::App* command = app.add_subcommand(
      "plan", "Which mesh and strategy serve or train a model best on a slice, from config.json");
  command->footer(
      "Ends with exit code 1 where nothing fits; and, with the plan printed, where nothing meets "
      "the targets, or where all that was to be compiled failed and the plan is by formulas.");
  cli::add_common_flags(*command, flags.get());
  command->add_option("--task", *name, "What it is for")
      ->check(CLI::IsMember({"serve", "train"}))
      ->capture_default_str();
  command->add_option("--hlo", *hlo,
                      "Price this compiled program (HLO as text or message) instead of a model");
  command->add_flag("--calibrate", *calibrate,
                    "What the estimate says of programs whose time the chip's peak gives");
  CLI::App* serve = command->add_option_group("Serving", "With --task serve");
  CLI::App* train = command->add_option_group("Training", "With --task train");
  const std::vector<cli::Task> tasks = {{"serve", serve, cli::add_serve_task(*serve, flags)},
                                        {"train", train, cli::add_train_task(*train, flags)}};
  command->callback([=] {
    if (!hlo->empty()) return cli::price_hlo(*flags, *hlo);
    if (*calibrate) {
      const ttpu::plan::Slice slice = ttpu::plan::parse_slice(flags->topology);
      std::cout << ttpu::plan::to_table(slice, ttpu::plan::calibrate(slice));
      return;
    }
    cli::run_task(*flags, *name, tasks);
  });
}
