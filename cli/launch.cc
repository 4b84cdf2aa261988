// ttpu launch --local N | --hosts a,b | --hostfile FILE | --tpu-vm | --slurm | --kubernetes --
// COMMAND
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/ranges.h>

#include "cli/commands.h"
#include "cli/numbers.h"
#include "ttpu/base/error.h"
#include "ttpu/base/file.h"
#include "ttpu/parallel/launch/agent.h"
#include "ttpu/parallel/launch/launcher.h"
#include "ttpu/parallel/launch/manifest.h"

extern char** environ;

namespace {

using ttpu::parallel::Cluster;

struct LaunchFlags {
  bool agent = false;
  int local = 0;
  std::string hosts;
  std::string hostfile;
  bool tpu_vm = false;
  std::string metadata_url = ttpu::env_or("TTPU_METADATA_URL", "http://metadata.google.internal");
  bool slurm = false;
  bool print = false;
  int nodes = 0;
  bool kubernetes = false;
  std::string name = "ttpu";
  std::string image;
  int port = 8490;
  bool port_given = false;
  std::vector<std::string> variables;
  std::vector<std::string> given;  // what a printed text hands on (job_arguments())
  bool no_preflight = false;
  ttpu::parallel::LaunchOptions options;
};

Cluster cluster_of(const LaunchFlags& flags) {
  const int ways = (flags.local > 0 ? 1 : 0) + (flags.hosts.empty() ? 0 : 1) +
                   (flags.hostfile.empty() ? 0 : 1) + (flags.tpu_vm ? 1 : 0) +
                   (flags.slurm ? 1 : 0);
  ttpu::require(ways < 2,
                "[launch] give one of --local, --hosts, --hostfile, --tpu-vm and --slurm");
  if (flags.local > 0) return ttpu::parallel::local_cluster(flags.local);
  if (!flags.hosts.empty()) return ttpu::parallel::cluster_of(flags.hosts);
  if (!flags.hostfile.empty()) return ttpu::parallel::cluster_from_file(flags.hostfile);
  if (flags.tpu_vm) return ttpu::parallel::cluster_from_metadata(flags.metadata_url);
  if (flags.slurm) return ttpu::parallel::cluster_from_slurm();
  return ttpu::parallel::detect_cluster();
}

// Hosts that are reached through a remote shell know nothing of this process's variables.
ttpu::parallel::Variables variables_of(const LaunchFlags& flags, bool remote) {
  ttpu::parallel::Variables variables;
  for (char** it = environ; remote && *it != nullptr; ++it) {
    const std::string entry = *it;
    const size_t equals = entry.find('=');
    for (const char* prefix : {"TTPU_", "TPU_", "LIBTPU_", "XLA_", "HF_"}) {
      if (entry.starts_with(prefix)) {
        variables.emplace_back(entry.substr(0, equals), entry.substr(equals + 1));
      }
    }
  }
  for (const std::string& entry : flags.variables) {
    const size_t equals = entry.find('=');
    const std::string name = entry.substr(0, equals);
    const char* here = std::getenv(name.c_str());
    ttpu::require(!name.empty() && (equals != std::string::npos || here != nullptr),
                  "[launch] --env {} has no value here; write NAME=VALUE", entry);
    variables.emplace_back(name, equals == std::string::npos ? here : entry.substr(equals + 1));
  }
  return variables;
}

// What was given for the job, for the `ttpu launch` in a manifest or script.
std::vector<std::string> job_arguments(const CLI::App& command, const LaunchFlags& flags) {
  std::vector<const char*> names = {"--topology",     "--folder",       "--start-timeout",
                                    "--peer-timeout", "--grace-period", "--preflight-device"};
  if (!flags.kubernetes) names.push_back("--max-restarts");  // else the JobSet itself does that
  std::vector<std::string> words;
  for (const char* name : names) {
    const CLI::Option* option = command.get_option(name);
    if (option->count() == 0 || option->results().back().empty()) continue;
    words.push_back(fmt::format("{}={}", name, option->results().back()));
  }
  for (const auto& [name, value] : variables_of(flags, false)) {
    words.push_back(fmt::format("--env={}={}", name, value));
  }
  if (flags.no_preflight) words.emplace_back("--no-preflight");
  return words;
}

// What another scheduler is given in place of a start here.
std::string text_of(const LaunchFlags& flags) {
  const ttpu::parallel::LaunchOptions& job = flags.options;
  if (flags.kubernetes) {
    return ttpu::parallel::jobset_manifest({flags.name, flags.image, job.topology, flags.given,
                                            job.command, job.max_restarts, flags.port,
                                            job.grace_s});
  }
  ttpu::require(flags.nodes > 0, "[launch] --slurm --print needs --nodes N");
  return ttpu::parallel::sbatch_script(flags.given, job.command, flags.nodes, flags.port);
}

int run(LaunchFlags flags) {
  if (flags.agent) return ttpu::parallel::run_agent();
  ttpu::parallel::LaunchOptions& options = flags.options;
  ttpu::require(!options.command.empty(),
                "[launch] no command was given; write it behind --, as in `ttpu launch --local 2 "
                "-- ttpu generate MODEL`");
  ttpu::require(flags.slurm || !flags.print,
                "[launch] --print is of --slurm; with --kubernetes a manifest is printed anyway");
  ttpu::require(flags.print || flags.nodes == 0,
                "[launch] --nodes {} is of the script that --slurm --print prints; the hosts of a "
                "job are given otherwise",
                flags.nodes);
  if (flags.kubernetes || flags.print) {
    std::fputs(text_of(flags).c_str(), stdout);
    return 0;
  }
  options.cluster = cluster_of(flags);
  const bool remote = !options.cluster.local && !options.cluster.self;
  if (!options.cluster.local || flags.port_given) {
    options.ports = ttpu::parallel::JobPorts::from(flags.port);
  }
  options.preflight = !flags.no_preflight;
  options.variables = variables_of(flags, remote);
  if (remote && options.folder.empty()) options.folder = std::filesystem::current_path().string();
  return ttpu::parallel::launch(options);
}

void add_cluster_flags(CLI::App& command, LaunchFlags* flags) {
  command.add_option("--local", flags->local, "So many processes on this machine")
      ->check(ttpu::cli::above_zero());
  command.add_option("--hosts", flags->hosts,
                     "Hosts to reach through a remote shell: a,b,c or user@a=10.0.0.1,...");
  command.add_option("--hostfile", flags->hostfile,
                     "The same from a file: a line a host, NAME [ADDRESS] [slots=N]");
  command.add_flag(
      "--tpu-vm", flags->tpu_vm,
      "This command runs on every TPU VM of the slice; the metadata server names them");
  command.add_option("--metadata-url", flags->metadata_url, "Where the metadata server is")
      ->capture_default_str();
  command.add_flag("--slurm", flags->slurm,
                   "The nodes of this SLURM allocation, from its batch script or under srun");
  command.add_flag("--print", flags->print, "With --slurm: print a script for sbatch");
  command.add_option("--nodes", flags->nodes, "Of that script");
  command.add_flag("--kubernetes", flags->kubernetes, "Print a JobSet manifest");
  command.add_option("--name", flags->name, "Of the JobSet")->capture_default_str();
  command.add_option("--image", flags->image, "Of the JobSet's containers, with ttpu in it");
  command.add_option("--topology", flags->options.topology,
                     "The slice, such as v5e:4x4; the hosts must have its chips");
}

void add_job_flags(CLI::App& command, LaunchFlags* flags) {
  ttpu::parallel::LaunchOptions& options = flags->options;
  command.add_option("--rsh", options.remote_shell,
                     "The remote shell (default: ssh); {host} stands for the host's name, which "
                     "else comes last");
  command.add_option("--remote-ttpu", options.remote_command,
                     "Where ttpu is on the hosts (default: as here)");
  command.add_option("--folder", options.folder, "Where the processes start (default: as here)");
  command
      .add_option("--env", flags->variables,
                  "NAME or NAME=VALUE for all processes; TTPU_*, TPU_*, LIBTPU_*, XLA_* and "
                  "HF_* go with them anyway")
      ->allow_extra_args(false);
  command
      .add_option("--port", flags->port,
                  "Of the control plane; the ports after it are for launchers and libtpu")
      ->check(CLI::Range(1024, 60000))
      ->capture_default_str();
  command.add_option("--max-restarts", options.max_restarts, "Start all again when one fails")
      ->check(ttpu::cli::zero_or_more())
      ->capture_default_str();
  command.add_option("--start-timeout", options.start_timeout_s, "Seconds for all to come up")
      ->check(ttpu::cli::above_zero())
      ->capture_default_str();
  command
      .add_option("--peer-timeout", options.peer_timeout_s,
                  "Who has not been heard of for so many seconds is lost")
      ->check(ttpu::cli::above_zero())
      ->capture_default_str();
  command
      .add_option("--grace-period", options.grace_s,
                  "Seconds between the order to end and the end by force")
      ->check(ttpu::cli::zero_or_more())
      ->capture_default_str();
  command.add_flag("--no-preflight", flags->no_preflight, "Start whatever the hosts say");
  command
      .add_option("--preflight-device", options.check.device,
                  "The plugin that must be the same on all hosts")
      ->capture_default_str();
}

}  // namespace

// CLI11 would take arguments in brackets apart, drop a second --, and more.
int add_launch_command(CLI::App& app, int argc, char** argv) {
  const bool launches = argc > 1 && std::string_view(argv[1]) == "launch";
  char** const end = argv + argc;
  char** const dashes = launches ? std::find(argv, end, std::string_view("--")) : end;
  const std::vector<std::string> behind(dashes == end ? end : dashes + 1, end);
  auto flags = std::make_shared<LaunchFlags>();
  CLI::App* command = app.add_subcommand("launch", "Run one command on every host of a slice");
  add_cluster_flags(*command, flags.get());
  add_job_flags(*command, flags.get());
  command->add_flag("--agent", flags->agent)->group("");  // what launchers start on hosts
  command->add_option("--chips-folder", flags->options.check.devices)->group("");
  command->add_option("--lockfile", flags->options.check.lockfile)->group("");
  command->add_option("command", flags->options.command, "What to run, behind --");
  command->footer("Example: ttpu launch --hosts a,b -- ttpu serve MODEL --tensor-parallel-size 8");
  command->callback([flags, command, behind] {
    std::vector<std::string>& words = flags->options.command;
    ttpu::require(words.empty(), "[launch] '{}' does not stand behind --; write the command there",
                  fmt::join(words, " "));
    words = behind;
    flags->port_given = command->count("--port") > 0;
    if (flags->kubernetes || flags->print) flags->given = job_arguments(*command, *flags);
    const int code = run(*flags);
    if (code != 0) throw CLI::RuntimeError(code);
  });
  return static_cast<int>(dashes - argv);
}
