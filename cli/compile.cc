// ttpu compile MODEL --topology v5e:2x2, or h100:8
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include <fmt/ranges.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/compile_train.h"
#include "cli/model_flags.h"
#include "cli/numbers.h"
#include "cli/planned_weights.h"
#include "cli/task_flags.h"
#include "ttpu/base/file.h"
#include "ttpu/base/subprocess.h"
#include "ttpu/engine/aot.h"
#include "ttpu/engine/bundle_build.h"
#include "ttpu/engine/child_compile.h"
#include "ttpu/engine/engine_plan.h"
#include "ttpu/io/hub.h"
#include "ttpu/models/registry.h"
#include "ttpu/plan/gpus.h"
#include "ttpu/plan/planner.h"

namespace ttpu::cli {
namespace {

struct CompileFlags {
  std::string model;
  std::string topology;
  std::string dtype = "bf16";
  std::string cache_dtype = "auto";
  std::string weights = "auto";
  bool no_kernels = false;
  engine::EngineOptions engine = default_options();
  std::string task = "serve";
  TrainFlags train;
  std::string layers;  // empty: unrolled, in training scanned
  bool json = false;
  std::string output;    // the folder of a bundle
  std::string save_hlo;  // the folder of the scheduled programs
  std::string xla_flags;
  std::string child;  // the phase that this process is to compile
  int64_t first_layers = 0;
  std::vector<int> child_devices;
  std::string child_text;  // the file that this process is to compile into `output`

  bool trains() const { return task == "train"; }
  bool scans() const { return layers.empty() ? trains() : layers == "scanned"; }
  engine::CompileWith with() const {
    engine::CompileWith with{xla_flags, {}};
    if (!save_hlo.empty()) with.hlo_file = std::filesystem::path(save_hlo) / (child + ".hlo.pb");
    return with;
  }

  static engine::EngineOptions default_options() {
    engine::EngineOptions options;
    options.max_num_batched_tokens = 512;
    return options;
  }
};

engine::EngineOptions engine_options(const CompileFlags& flags) {
  engine::EngineOptions options = flags.engine;
  options.dtype = parse_dtype(flags.dtype);
  options.cache_dtype = engine::cache_dtype_of(flags.cache_dtype);
  options.expand_weights = flags.weights == "bf16" || options.dtype == DType::kF32;
  options.custom_calls = !flags.no_kernels;
  return options;
}

engine::AotRequest to_request(const CompileFlags& flags) {
  engine::AotRequest request;
  request.config = read_config(flags.model);
  if (flags.model.ends_with(".gguf")) request.weights = flags.model;
  request.topology = flags.topology;
  request.phase = flags.child == "decode" ? engine::Phase::kDecode : engine::Phase::kPrefill;
  request.engine = engine_options(flags);
  request.layers = flags.scans() ? nn::Layers::kScanned : nn::Layers::kUnrolled;
  request.first_layers = flags.first_layers;
  request.with = flags.with();
  return request;
}

plan::ProgramReport compile_training(const CompileFlags& flags) {
  train::TrainAotRequest request;
  request.config = read_config(flags.model);
  request.topology = flags.topology;
  const pjrt::Topology topology = engine::create_topology(flags.topology);
  set_step(flags.train, flags.engine.parallel, static_cast<int64_t>(topology.devices().size()),
           &request);
  request.step.layers = flags.scans() ? nn::Layers::kScanned : nn::Layers::kUnrolled;
  request.step.compute = parse_dtype(flags.dtype);
  request.kernels = !flags.no_kernels;
  request.with = flags.with();
  return train::compile_train_step(request);
}

// The child: one line on standard output, a report or an error.
void compile_here(const CompileFlags& flags) {
  Json line;
  try {
    line["report"] = plan::to_json(flags.trains() ? compile_training(flags)
                                                  : engine::compile_ahead(to_request(flags)));
  } catch (const Error& error) {
    line["error"] = {{"code", static_cast<int>(error.code())}, {"message", error.what()}};
  }
  std::cout << line.dump() << "\n";
}

// For a program that does not fit: what to do instead.
std::string advice(const CompileFlags& flags) {
  const char* smaller = flags.trains() ? "Or lower --micro-batch-size or --seq-len."
                                       : "Or lower --max-num-seqs, --max-model-len or "
                                         "--max-num-batched-tokens.";
  if (const plan::Gpu* gpu = plan::gpu_of_topology(flags.topology)) {
    return fmt::format("\nTake more devices ({}:{}). {}", gpu->chip.name,
                       2 * plan::gpus_of_topology(flags.topology), smaller);
  }
  if (flags.trains()) {
    return fmt::format("\n`ttpu plan {} --topology {} --task train` looks for what fits.",
                       flags.model, flags.topology);
  }
  const Json config = read_config(flags.model);
  const plan::ModelFacts facts = plan::facts_of(models::decoder_from_config(config));
  const engine::EngineOptions& engine = flags.engine;
  plan::Workload work;
  const int64_t length = engine.max_model_len > 0
                             ? engine.max_model_len
                             : std::min(facts.max_positions, engine::kDefaultModelLen);
  work.input_len = std::max<int64_t>(1, length - 1);
  work.output_len = length - work.input_len;
  work.batch = engine.max_num_seqs * std::max<int64_t>(1, engine.parallel.data_parallel_size);
  work.prefill_tokens = engine.max_num_batched_tokens;
  work.element_bytes = bit_width(parse_dtype(flags.dtype)) / 8.0;
  work.cache_dtype = ttpu::engine::cache_dtype_of(flags.cache_dtype);
  work.quantization = planned_quantization(config, engine.quantization, flags.weights, facts);
  return fmt::format("\nBy formulas these would do: {}. {}", plan::slices_that_fit(facts, work),
                     smaller);
}

plan::ProgramReport compile_in_child(const CompileFlags& flags, const std::string& phase) {
  const std::string self = std::filesystem::read_symlink("/proc/self/exe").string();
  std::vector<std::string> command = {self,
                                      "compile",
                                      flags.model,
                                      "--topology",
                                      flags.topology,
                                      "--dtype",
                                      flags.dtype,
                                      "--kv-cache-dtype",
                                      flags.cache_dtype,
                                      "--weights",
                                      flags.weights,
                                      "--block-size",
                                      std::to_string(flags.engine.block_size),
                                      "--max-model-len",
                                      std::to_string(flags.engine.max_model_len),
                                      "--max-num-seqs",
                                      std::to_string(flags.engine.max_num_seqs),
                                      "--max-num-batched-tokens",
                                      std::to_string(flags.engine.max_num_batched_tokens),
                                      "--layers",
                                      flags.scans() ? "scanned" : "unrolled",
                                      "--child",
                                      phase};
  if (flags.trains()) {
    const std::vector<std::string> own = train_arguments(flags.train);
    command.insert(command.end(), own.begin(), own.end());
  }
  if (flags.engine.num_blocks > 0) {
    command.insert(command.end(), {"--num-blocks", std::to_string(flags.engine.num_blocks)});
  }
  if (!flags.engine.quantization.empty()) {
    command.insert(command.end(), {"--quantization", flags.engine.quantization});
  }
  if (flags.no_kernels) command.emplace_back("--no-kernels");
  if (!flags.xla_flags.empty()) command.push_back("--xla-flags=" + flags.xla_flags);
  if (!flags.save_hlo.empty()) {
    std::filesystem::create_directories(flags.save_hlo);
    command.insert(command.end(), {"--save-hlo", flags.save_hlo});
  }
  for (std::string& argument : parallel_arguments(flags.engine.parallel)) {
    command.push_back(std::move(argument));
  }
  engine::ChildCompile child;
  child.command = std::move(command);
  try {
    return engine::compile_in_child(child);
  } catch (const Error& error) {
    const std::string hint = error.code() == Code::kResourceExhausted ? advice(flags) : "";
    throw Error(error.code(), fmt::format("[compile] {} for {}: {}{}", phase, flags.topology,
                                          error.what(), hint));
  }
}

// A folder for as long as this lives, whatever happens meanwhile.
class Workplace {
 public:
  Workplace()
      : path_(std::filesystem::temp_directory_path() / fmt::format("ttpu_compile.{}", getpid())) {
    std::filesystem::create_directories(path_);
  }
  ~Workplace() {
    std::error_code error;
    std::filesystem::remove_all(path_, error);
  }
  Workplace(const Workplace&) = delete;
  Workplace& operator=(const Workplace&) = delete;

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// One program in another process: the compiler keeps the memory it took.
std::string compile_text_in_child(const CompileFlags& flags, const std::string& program,
                                  const std::string& text, const std::vector<int>& devices) {
  const Workplace folder;
  const std::filesystem::path source = folder.path() / (program + ".mlir");
  const std::filesystem::path made = folder.path() / (program + ".executable");
  write_file(source, text);
  SubprocessOptions options;
  options.timeout = std::chrono::minutes(60);
  const SubprocessResult result = run_subprocess(
      {std::filesystem::read_symlink("/proc/self/exe").string(), "compile", flags.model,
       "--topology", flags.topology, "--child-text", source.string(), "--child-devices",
       fmt::format("{}", fmt::join(devices, ",")), "-o", made.string()},
      options);
  if (result.exit_code != 0) {
    fail(Code::kInternal, "[compile] program {} for {}: {}", program, flags.topology,
         result.errors);
  }
  return read_file(made);
}

void compile_bundle(const CompileFlags& flags) {
  engine::BundleRequest request;
  request.model = flags.model.ends_with(".json") ? std::filesystem::path(flags.model)
                                                 : io::resolve_model(flags.model);
  request.engine = engine_options(flags);
  request.topology = flags.topology;
  request.folder = flags.output;
  request.compile = [&](const std::string& program, const std::string& text,
                        const std::vector<int>& devices) {
    return compile_text_in_child(flags, program, text, devices);
  };
  const auto choices = engine::build_bundle(request, [](int64_t done, int64_t total) {
    std::cerr << fmt::format("compiled {} of {} programs\n", done, total);
  });
  for (const auto& choice : choices) std::cout << to_string(choice) << ".\n";
  std::cout << fmt::format("bundle in {}\n", flags.output);
}

void compile(const CompileFlags& flags) {
  if (!flags.child_text.empty()) {
    write_file(flags.output, engine::compile_for_topology(
                                 flags.topology, read_file(flags.child_text), flags.child_devices));
    return;
  }
  require(!flags.trains() || flags.output.empty(),
          "[compile] -o makes a bundle for serving; --task train has none");
  if (!flags.output.empty()) return compile_bundle(flags);
  if (!flags.child.empty()) return compile_here(flags);
  require(!flags.topology.empty(),
          "[compile] no --topology was given; give one such as v5e:2x2 or h100:8, or -o DIR to "
          "compile for --device");
  std::vector<plan::ProgramReport> reports;
  const std::vector<std::string> phases = flags.trains()
                                              ? std::vector<std::string>{"train"}
                                              : std::vector<std::string>{"prefill", "decode"};
  for (const std::string& phase : phases) {
    reports.push_back(compile_in_child(flags, phase));
  }
  if (!flags.json) {
    std::cout << plan::to_table(reports);
    return;
  }
  Json all = Json::object();
  for (const plan::ProgramReport& report : reports) all[report.phase] = plan::to_json(report);
  std::cout << all.dump(2) << "\n";
}

// What a child need not be asked again: flags that would be ignored, and slices that do not exist.
void check_flags(const CLI::App& command, const CompileFlags& flags) {
  const auto flags_of = [&](const std::string& task) -> TaskFlags {
    const std::string group = "With --task " + task;
    return {task, command.get_options([&group](const CLI::Option* option) {
              return option->get_group() == group;
            })};
  };
  refuse_flags_of("compile", flags_of(flags.trains() ? "serve" : "train"), flags_of(flags.task));
  if (flags.topology.empty()) return;
  require(command.count("--device") == 0,
          "[compile] --topology {} compiles for devices that need not be here and --device {} for "
          "those here; leave one of them out",
          flags.topology, flags.engine.device);
  if (plan::gpu_of_topology(flags.topology) != nullptr) {
    plan::gpus_of_topology(flags.topology);
  } else {
    plan::parse_slice(flags.topology);
  }
}

}  // namespace
}  // namespace ttpu::cli

void add_compile_command(CLI::App& app) {
  using ttpu::cli::CompileFlags;
  auto flags = std::make_shared<CompileFlags>();
  CLI::App* command = app.add_subcommand(
      "compile",
      "Compile a model for TPUs or GPUs that need not be here; show memory, cost, the limit");
  command
      ->add_option("model", flags->model,
                   "A folder with config.json, a config's .json file, a .gguf file, or a hub id")
      ->required();
  command->add_option(
      "--topology", flags->topology,
      "v5e:2x2, v6e:2x2, v5p:2x2x1, tpu7x:2x2x1; a100, h100, h200 or b200, eight of "
      "them as h100:8");
  command->add_option("-o,--output", flags->output,
                      "Compile all programs of the engine into this folder, a bundle for `ttpu "
                      "serve --bundle`");
  command
      ->add_option("--device", flags->engine.device,
                   "With -o and no --topology: the device here, cpu, tpu, cuda or a plugin's path")
      ->capture_default_str();
  command->add_option("--dtype", flags->dtype, "Type of weights, activations and cache")
      ->check(CLI::IsMember({"bf16", "f32"}))
      ->capture_default_str();
  ttpu::cli::add_cache_dtype_flag(*command, &flags->cache_dtype);
  command
      ->add_option("--weights", flags->weights,
                   "auto keeps what is quantized or in GGUF's blocks; bf16 expands it")
      ->check(CLI::IsMember({"auto", "bf16"}))
      ->capture_default_str();
  ttpu::cli::add_quantization_flag(*command, &flags->engine.quantization);
  command->add_flag("--no-kernels", flags->no_kernels, "Plain XLA, without kernels for CPU or TPU");
  command->add_option("--block-size", flags->engine.block_size, "Tokens of a block of the cache")
      ->capture_default_str();
  command
      ->add_option("--num-blocks", flags->engine.num_blocks, "Blocks of the cache (0: by memory)")
      ->check(ttpu::cli::zero_or_more());
  command
      ->add_option("--num-speculative-tokens", flags->engine.speculation.num_speculative_tokens,
                   "Guess so many tokens a step")
      ->check(ttpu::cli::zero_or_more())
      ->capture_default_str();
  command->add_option("--max-model-len", flags->engine.max_model_len,
                      "Most tokens of a sequence (0: the model's, to 4096)");
  command
      ->add_option("--max-num-seqs,--batch", flags->engine.max_num_seqs,
                   "Requests that run at once")
      ->capture_default_str();
  command
      ->add_option("--max-num-batched-tokens,--prefill-tokens",
                   flags->engine.max_num_batched_tokens,
                   "Tokens of one step; long prompts are computed in pieces of it")
      ->capture_default_str();
  command
      ->add_option("--layers", flags->layers,
                   "A copy of the code for each layer, or a loop over them (default: unrolled; "
                   "scanned with --task train)")
      ->check(CLI::IsMember({"unrolled", "scanned"}));
  command
      ->add_option("--task", flags->task,
                   "serve: prefill and decode; train: a step of the optimizer")
      ->check(CLI::IsMember({"serve", "train"}))
      ->capture_default_str();
  for (const char* name : {"--kv-cache-dtype", "--weights", "--quantization", "--block-size",
                           "--num-blocks", "--num-speculative-tokens", "--max-model-len",
                           "--max-num-seqs", "--max-num-batched-tokens"}) {
    command->get_option(name)->group("With --task serve");
  }
  ttpu::cli::add_train_flags(*command, &flags->train);
  ttpu::cli::add_parallel_flags(*command, &flags->engine.parallel);
  command->add_option("--save-hlo", flags->save_hlo,
                      "Put the scheduled programs into this folder; `ttpu plan --hlo` reads them");
  command->add_option("--xla-flags", flags->xla_flags,
                      "Flags of the compiler: \"--xla_a=true --xla_b=3\"");
  command->add_flag("--json", flags->json, "Print JSON");
  command->add_option("--first-layers", flags->first_layers)->group("");  // of the child alone
  command->add_option("--child-text", flags->child_text)->group("");
  command->add_option("--child-devices", flags->child_devices)->delimiter(',')->group("");
  command->add_option("--child", flags->child)
      ->check(CLI::IsMember({"prefill", "decode", "train"}))
      ->group("");  // not shown
  command->callback([flags, command] {
    if (flags->child.empty() && flags->child_text.empty()) {
      ttpu::cli::check_flags(*command, *flags);
    }
    ttpu::cli::compile(*flags);
  });
}
