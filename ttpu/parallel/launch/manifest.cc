#include "ttpu/parallel/launch/manifest.h"

#include <algorithm>
#include <array>
#include <string_view>

#include <fmt/ranges.h>

#include "ttpu/base/error.h"
#include "ttpu/base/json.h"
#include "ttpu/base/utf8.h"
#include "ttpu/parallel/launch/host_check.h"
#include "ttpu/parallel/slices.h"

namespace ttpu::parallel {
namespace {

// Seconds that a pod has beyond the grace period, in which `ttpu launch` ends what is left.
constexpr int64_t kMoreGrace = 15;

struct Chip {
  std::string_view name;
  std::string_view accelerator;  // GKE's label
  bool flat;                     // two dimensions; 2x4 is one host, not two
};
constexpr std::array<Chip, 5> kChips = {{{"v4", "tpu-v4-podslice", false},
                                         {"v5e", "tpu-v5-lite-podslice", true},
                                         {"v5p", "tpu-v5p-slice", false},
                                         {"v6e", "tpu-v6e-slice", true},
                                         {"tpu7x", "tpu7x", false}}};

const Chip& chip_called(std::string_view name) {
  const auto* found = std::find_if(kChips.begin(), kChips.end(),
                                   [&](const Chip& chip) { return chip.name == name; });
  if (found == kChips.end()) {
    fail(Code::kInvalidArgument,
         "[launch] the chip '{}' is not known; expected v4, v5e, v5p, v6e or tpu7x", name);
  }
  return *found;
}

// Throws for slices that GKE does not have: no node would ever fit.
void check_slice(const Chip& chip, const std::string& topology, const std::vector<int>& dims) {
  const std::string shape = fmt::format("{}", fmt::join(dims, "x"));
  if (chip.flat) {
    require(std::ranges::find(kFlatSlices, shape) != std::end(kFlatSlices),
            "[launch] there is no slice {}; {} has the shapes {}", topology, chip.name,
            fmt::join(kFlatSlices, ", "));
    return;
  }
  const bool large = dims.size() == 3 && std::is_sorted(dims.begin(), dims.end()) &&
                     std::all_of(dims.begin(), dims.end(), [](int dim) { return dim % 4 == 0; });
  require(large || std::ranges::find(kCubeSlices, shape) != std::end(kCubeSlices),
          "[launch] there is no slice {}; {} has the shapes {}, and larger ones of three multiples "
          "of 4, the smallest first, such as 4x4x8",
          topology, chip.name, fmt::join(kCubeSlices, ", "));
}

// JSON's strings are YAML's, too.
std::string quoted(const std::string& text) {
  require(utf8_valid(text), "[launch] '{}' is not UTF-8, as a manifest must be", text);
  return Json(text).dump();
}

std::string shell_word(const std::string& word) {
  const bool plain = !word.empty() && std::all_of(word.begin(), word.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 ||
           std::string_view("-_./=:,+@%").find(static_cast<char>(c)) != std::string_view::npos;
  });
  if (plain) return word;
  std::string result = "'";
  for (const char c : word) result += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return result + "'";
}

}  // namespace

std::string jobset_manifest(const ManifestOptions& options) {
  const bool good_name =
      !options.name.empty() && options.name.size() <= 40 &&
      std::all_of(options.name.begin(), options.name.end(),
                  [](unsigned char c) {
                    return std::islower(c) != 0 || std::isdigit(c) != 0 || c == '-';
                  }) &&
      std::islower(static_cast<unsigned char>(options.name.front())) != 0 &&
      options.name.back() != '-';
  require(good_name,
          "[launch] Kubernetes takes no job called '{}'; expected small letters, digits and -, at "
          "most 40",
          options.name);
  require(!options.image.empty(), "[launch] a manifest needs --image, with ttpu in it");
  require(!options.topology.empty(), "[launch] a manifest needs --topology, such as v5e:4x4");
  const std::vector<int> dims = topology_dims(options.topology);
  const Chip& chip = chip_called(options.topology.substr(0, options.topology.find(':')));
  check_slice(chip, options.topology, dims);
  int64_t chips = 1;
  for (const int dim : dims) chips *= dim;
  const int64_t on_host = chips == 8 && chip.flat ? 8 : std::min<int64_t>(chips, 4);
  std::string command =
      "[\"ttpu\", \"launch\", \"--port\", \"" + std::to_string(options.port) + "\"";
  for (const std::string& word : options.arguments) command += ", " + quoted(word);
  command += ", \"--\"";
  for (const std::string& word : options.command) command += ", " + quoted(word);
  return fmt::format(R"(apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: {name}
  annotations:
    alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool
spec:
  failurePolicy:
    maxRestarts: {restarts}
  replicatedJobs:
  - name: slice
    replicas: 1
    template:
      spec:
        parallelism: {hosts}
        completions: {hosts}
        backoffLimit: 0
        template:
          spec:
            restartPolicy: Never
            terminationGracePeriodSeconds: {patience}
            nodeSelector:
              cloud.google.com/gke-tpu-accelerator: {accelerator}
              cloud.google.com/gke-tpu-topology: {shape}
            containers:
            - name: ttpu
              image: {image}
              command: {command}]
              ports:
              - containerPort: {port}
              - containerPort: {next_port}
              resources:
                requests:
                  google.com/tpu: {on_host}
                limits:
                  google.com/tpu: {on_host}
)",
                     fmt::arg("name", options.name), fmt::arg("restarts", options.max_restarts),
                     fmt::arg("hosts", chips / on_host), fmt::arg("accelerator", chip.accelerator),
                     fmt::arg("shape", fmt::format("{}", fmt::join(dims, "x"))),
                     fmt::arg("image", quoted(options.image)), fmt::arg("command", command),
                     fmt::arg("port", options.port), fmt::arg("next_port", options.port + 1),
                     fmt::arg("on_host", on_host),
                     fmt::arg("patience", int64_t{options.grace_s} + kMoreGrace));
}

std::string sbatch_script(const std::vector<std::string>& arguments,
                          const std::vector<std::string>& command, int nodes, int port) {
  std::string line;
  for (const std::string& word : arguments) line += " " + shell_word(word);
  line += " --";
  for (const std::string& word : command) line += " " + shell_word(word);
  return fmt::format(R"(#!/bin/bash
#SBATCH --job-name=ttpu
#SBATCH --nodes={}
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
exec srun --kill-on-bad-exit=1 ttpu launch --slurm --port {}{}
)",
                     nodes, port, line);
}

}  // namespace ttpu::parallel
