// ttpu compile MODEL --topology v5e:2x2
#include <chrono>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "ttpu/base/subprocess.h"
#include "ttpu/engine/aot.h"
#include "ttpu/io/config.h"
#include "ttpu/io/hub.h"

namespace ttpu::cli {
namespace {

struct CompileFlags {
  std::string model;
  std::string topology;
  std::string dtype = "bf16";
  int64_t max_model_len = 0;
  int64_t batch = 1;
  int64_t prefill_tokens = 512;
  std::string layers = "unrolled";
  bool json = false;
  std::string child;  // the phase that this process is to compile
};

Json read_config(const std::string& model) {
  if (model.ends_with(".json")) return read_json(model);
  return io::load_model_files(io::resolve_model(model)).config;
}

engine::AotRequest to_request(const CompileFlags& flags) {
  engine::AotRequest request;
  request.config = read_config(flags.model);
  request.topology = flags.topology;
  request.phase = flags.child == "decode" ? engine::Phase::kDecode : engine::Phase::kPrefill;
  request.max_model_len = flags.max_model_len;
  request.batch = flags.batch;
  request.prefill_tokens = flags.prefill_tokens;
  request.dtype = parse_dtype(flags.dtype);
  request.layers = flags.layers == "scanned" ? nn::Layers::kScanned : nn::Layers::kUnrolled;
  return request;
}

// The child: one line on standard output, a report or an error.
void compile_here(const CompileFlags& flags) {
  Json line;
  try {
    line["report"] = plan::to_json(engine::compile_ahead(to_request(flags)));
  } catch (const Error& error) {
    line["error"] = {{"code", static_cast<int>(error.code())}, {"message", error.what()}};
  }
  std::cout << line.dump() << "\n";
}

plan::ProgramReport compile_in_child(const CompileFlags& flags, const std::string& phase) {
  const std::string self = std::filesystem::read_symlink("/proc/self/exe").string();
  SubprocessOptions options;
  options.timeout = std::chrono::minutes(30);
  const SubprocessResult result = run_subprocess(
      {self, "compile", flags.model, "--topology", flags.topology, "--dtype", flags.dtype,
       "--max-model-len", std::to_string(flags.max_model_len), "--batch",
       std::to_string(flags.batch), "--prefill-tokens", std::to_string(flags.prefill_tokens),
       "--layers", flags.layers, "--child", phase},
      options);
  if (result.exit_code != 0) {
    fail(Code::kInternal, "[compile] compiling the {} program ended with exit code {}: {}", phase,
         result.exit_code, result.errors);
  }
  const Json line = parse_json(result.output, "output of the compiling process");
  const JsonView view(line, "output of the compiling process");
  if (view.has("error")) {
    const JsonView error = view.child("error");
    const auto code = static_cast<Code>(error.get<int64_t>("code"));
    const char* hint = code == Code::kResourceExhausted
                           ? "\nTake a larger topology, or lower --batch, --max-model-len or "
                             "--prefill-tokens."
                           : "";
    throw Error(code, fmt::format("[compile] {} for {}: {}{}", phase, flags.topology,
                                  error.get<std::string>("message"), hint));
  }
  return plan::report_from_json(view.child("report").json());
}

void compile(const CompileFlags& flags) {
  if (!flags.child.empty()) return compile_here(flags);
  std::vector<plan::ProgramReport> reports;
  for (const char* phase : {"prefill", "decode"}) {
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

}  // namespace
}  // namespace ttpu::cli

void add_compile_command(CLI::App& app) {
  using ttpu::cli::CompileFlags;
  auto flags = std::make_shared<CompileFlags>();
  CLI::App* command = app.add_subcommand(
      "compile", "Compile a model for TPUs that need not be here; show memory, cost and the limit");
  command
      ->add_option("model", flags->model,
                   "A folder with config.json, a config's .json file, a .gguf file, or a hub id")
      ->required();
  command->add_option("--topology", flags->topology, "v5e:2x2, v6e:2x2, v5p:2x2x1, tpu7x:2x2x1")
      ->required();
  command->add_option("--dtype", flags->dtype, "Type of weights, activations and cache")
      ->check(CLI::IsMember({"bf16", "f32"}))
      ->capture_default_str();
  command->add_option("--max-model-len", flags->max_model_len,
                      "Most tokens of a sequence (0: the model's, to 4096)");
  command->add_option("--batch", flags->batch, "Sequences that decode together")
      ->capture_default_str();
  command->add_option("--prefill-tokens", flags->prefill_tokens, "Tokens of one prefill step")
      ->capture_default_str();
  command
      ->add_option("--layers", flags->layers,
                   "A copy of the code for each layer, or a loop over them")
      ->check(CLI::IsMember({"unrolled", "scanned"}))
      ->capture_default_str();
  command->add_flag("--json", flags->json, "Print JSON");
  command->add_option("--child", flags->child)
      ->check(CLI::IsMember({"prefill", "decode"}))
      ->group("");  // not shown
  command->callback([flags] { ttpu::cli::compile(*flags); });
}
