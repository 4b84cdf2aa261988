// The attention of training as libtpu compiles it: estimated time and temporary memory of forward
// and backward, by the StableHLO reference and by kernels. Needs no TPU; see --help.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ttpu/base/error.h"
#include "ttpu/ir/ir.h"
#include "ttpu/kernels/sequence_attention/sequence_attention.h"
#include "ttpu/pjrt/plugin.h"
#include "ttpu/pjrt/topology.h"
#include "ttpu/plan/schedule.h"

namespace ttpu {
namespace {

struct Sizes {
  int64_t sequences = 1, length = 4096, q_heads = 32, kv_heads = 8, size = 128, value_size = 0;
  bool sinks = false;
  kernels::SequenceAttentionOptions options;

  std::vector<Shape> shapes() const {
    const int64_t tokens = sequences * length;
    const int64_t values = value_size > 0 ? value_size : size;
    std::vector<Shape> all = {Shape(DType::kBF16, {tokens, q_heads, size}),
                              Shape(DType::kBF16, {tokens, kv_heads, size}),
                              Shape(DType::kBF16, {tokens, kv_heads, values})};
    if (sinks) all.emplace_back(DType::kF32, Dims{q_heads});
    return all;
  }
};

ir::Values arguments(ir::Function& function, const std::vector<Shape>& shapes) {
  ir::Values made;
  for (const Shape& shape : shapes) made.push_back(function.add_argument(shape));
  return made;
}

// The operator's forward with what its gradient keeps, or the gradient alone.
std::string program(const Sizes& sizes, const kernels::Target& target, bool backward) {
  ir::Module whole;
  const ir::Values a = arguments(whole.add_function(), sizes.shapes());
  kernels::SequenceAttentionOptions options = sizes.options;
  options.scale = 1 / std::sqrt(static_cast<double>(sizes.size));
  if (sizes.sinks) options.sinks = a[3];
  const ir::Value output =
      kernels::sequence_attention(target, a[0], a[1], a[2], sizes.length, options);
  const auto& callee = output.producer()->attributes.get<ir::Symbol>("callee").name;
  const ir::CustomGradient& gradient = *whole.find_function(callee)->gradient();
  const ir::Values kept = gradient.forward(a);

  ir::Module part;
  ir::Function& main = part.add_function();
  const ir::Values given = arguments(main, sizes.shapes());
  if (!backward) {
    main.set_results(gradient.forward(given));
    return part.to_string();
  }
  const ir::Values more = arguments(main, {kept[0].shape(), kept[1].shape(), output.shape()});
  main.set_results(gradient.backward(given, {more[0], more[1]}, {more[2]}));
  return part.to_string();
}

void print_cost(const std::string& topology, const Sizes& sizes, bool kernel, bool backward) {
  kernels::Target target;
  target.platform = kernels::Platform::kTpu;
  if (kernel) {
    const std::string chip = topology.substr(0, topology.find(':'));
    target.tpu = std::make_shared<kernels::TpuKernels>(chip);
  }
  const std::string code = program(sizes, target, backward);
  const auto plugin = pjrt::load_plugin(pjrt::find_plugin("tpu"));
  const pjrt::Executable executable = pjrt::Topology::create(plugin, topology).compile(code, {});
  const plan::ScheduleCost cost =
      plan::schedule_cost(executable.optimized_program(), plan::parse_slice(topology));
  fmt::print("{:<10} {:<9} {:>12.2f} {:>12.2f} {:>14.1f}\n", kernel ? "kernel" : "reference",
             backward ? "backward" : "forward", cost.seconds * 1e3, cost.limit_seconds * 1e3,
             static_cast<double>(executable.memory_stats().temporaries) / (1 << 20));
  if (kernel) fmt::print("  {}\n", to_string(target.tpu->choices().back()));
  for (const plan::KernelCost& used : cost.kernels) {
    fmt::print("  {}: {:.2f} ms, {:.1f} Gflop, {:.1f} MiB\n", used.name, used.seconds * 1e3,
               used.flops / 1e9, used.bytes / (1 << 20));
  }
}

// In a child: a process that compiles grows.
bool print_apart(const std::string& topology, const Sizes& sizes, bool kernel, bool backward) {
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    int code = EXIT_SUCCESS;
    try {
      print_cost(topology, sizes, kernel, backward);
    } catch (const Error& error) {
      fmt::print("{}\n", error.what());
      code = EXIT_FAILURE;
    }
    std::fflush(stdout);
    std::_Exit(code);
  }
  int status = 0;
  return waitpid(child, &status, 0) == child && status == 0;
}

}  // namespace
}  // namespace ttpu

int main(int argc, char** argv) {
  CLI::App app{"What the attention of training costs on a TPU"};
  std::string topology = "v6e:2x2";
  ttpu::Sizes sizes;
  bool all_seen = false, only_kernels = false;
  app.add_option("topology", topology, "v5e:2x2 and the like");
  app.add_option("--sequences", sizes.sequences);
  app.add_option("--length", sizes.length);
  app.add_option("--q-heads", sizes.q_heads);
  app.add_option("--kv-heads", sizes.kv_heads);
  app.add_option("--size", sizes.size, "of a head");
  app.add_option("--value-size", sizes.value_size, "of a value's head, where it is another");
  app.add_option("--window", sizes.options.sliding_window);
  app.add_option("--soft-cap", sizes.options.soft_cap);
  app.add_flag("--sinks", sizes.sinks);
  app.add_flag("--not-causal", all_seen);
  app.add_flag("--only-kernels", only_kernels);
  CLI11_PARSE(app, argc, argv);
  sizes.options.causal = !all_seen;
  fmt::print("{:<20} {:>12} {:>12} {:>14}\n", topology, "estimate ms", "limit ms", "temporary MiB");
  bool good = true;
  for (const bool kernel : {false, true}) {
    if (!kernel && only_kernels) continue;
    for (const bool backward : {false, true}) {
      good = ttpu::print_apart(topology, sizes, kernel, backward) && good;
    }
  }
  return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
