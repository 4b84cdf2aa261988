#include "ttpu/engine/aot.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <utility>

#include "ttpu/base/file.h"
#include "ttpu/engine/device.h"
#include "ttpu/engine/weight_loader.h"
#include "ttpu/models/registry.h"
#include "ttpu/pjrt/topology.h"
#include "ttpu/plan/gpus.h"

namespace ttpu::engine {
namespace {

EnginePlan plan_of(const AotRequest& request, const nn::DecoderSpec& spec, int64_t devices) {
  const EngineOptions options =
      settled(spec, request.engine, devices, tpu_memory(request.topology));
  // Whether it fits is seen later.
  EnginePlan plan =
      plan_engine(spec, options, kNoLimit, devices, platform_of_topology(request.topology));
  plan.shape.layers = request.layers;
  if (request.layers == nn::Layers::kScanned) {
    std::vector<int64_t>& blocks = plan.shape.group_blocks;
    std::fill(blocks.begin(), blocks.end(), *std::max_element(blocks.begin(), blocks.end()));
  }
  return plan;
}

// The largest that decodes, or the largest of all.
Bucket bucket_of(const EnginePlan& plan, Phase phase) {
  const int64_t sequences = plan.options.max_num_seqs;
  if (phase == Phase::kDecode) return {sequences, sequences, sequences};
  return plan.buckets.back();
}

// Sums stop here: the sizes of a config.json that makes no sense would overflow.
constexpr int64_t kMostBytes = int64_t{1} << 60;

int64_t bytes_of(const Shape& shape) {
  double bytes = bit_width(shape.dtype) / 8.0;
  for (const int64_t dim : shape.dims) bytes *= static_cast<double>(dim);
  return bytes < static_cast<double>(kMostBytes) ? shape.byte_size() : kMostBytes;
}

void add_bytes(int64_t bytes, int64_t* sum) { *sum = std::min(*sum + bytes, kMostBytes); }

// The sizes that follow from the program alone.
void add_arguments(const EngineProgram& program, const parallel::Layout& layout,
                   plan::ProgramReport* report) {
  for (const Shape& cache : program.caches) add_bytes(bytes_of(cache), &report->cache_bytes);
  int64_t whole = 0;
  for (const nn::WeightDecl& decl : program.weights) {
    const int64_t bytes = bytes_of(nn::argument_shape(decl));
    add_bytes(bytes, &report->weight_bytes);
    if (std::ranges::all_of(decl.placement, &parallel::Division::whole) && decl.stages.whole())
      add_bytes(bytes, &whole);
  }
  if (layout.one_device()) {
    report->sharding = "One device holds everything.";
    return;
  }
  report->sharding =
      fmt::format("Mesh {}, strategy {}; {:.1f}% of a device's weights are undivided.",
                  layout.mesh().to_string(), layout.strategy().name,
                  100.0 * static_cast<double>(whole) /
                      static_cast<double>(std::max<int64_t>(report->weight_bytes, 1)));
}

void require_fit(const plan::ProgramReport& report) {
  const int64_t needed = report.weight_bytes + report.cache_bytes;
  if (needed <= report.hbm_bytes) return;
  constexpr double kGiB = 1 << 30;
  fail(Code::kResourceExhausted,
       "[compile] does not fit: a device of {} has {:.1f} GiB of HBM, and weights ({:.1f} GiB) and "
       "cache ({:.1f} GiB) need {:.1f} GiB",
       report.topology, static_cast<double>(report.hbm_bytes) / kGiB,
       static_cast<double>(report.weight_bytes) / kGiB,
       static_cast<double>(report.cache_bytes) / kGiB, static_cast<double>(needed) / kGiB);
}

// What one device computes and reads.
void add_cost(const EngineProgram& program, plan::ProgramReport* report) {
  const ir::Function& function = *program.device;
  std::vector<plan::ArgumentRole> roles(function.arguments().size(), plan::ArgumentRole::kWeight);
  const auto caches = roles.begin() + static_cast<std::ptrdiff_t>(program.arguments.size());
  std::fill(roles.begin(), caches, plan::ArgumentRole::kInput);
  std::fill_n(caches, program.caches.size(), plan::ArgumentRole::kCache);
  const plan::ProgramCost cost = plan::program_cost(function, roles);
  report->flops = cost.flops;
  report->int8_ops = cost.int8_ops;
  report->fp8_flops = cost.fp8_flops;
  report->uncounted_loops = cost.uncounted_loops;
  report->weight_read_bytes = cost.weight_bytes;
  report->cache_read_bytes = cost.cache_read_bytes;
  report->cache_written_bytes = cost.cache_written_bytes;
}

// Empty where the plugin has none.
pjrt::Options cost_analysis(const pjrt::Executable& executable) {
  try {
    return executable.cost_analysis();
  } catch (const Error& error) {
    if (error.code() != Code::kUnimplemented) throw;
    return {};
  }
}

double property(const pjrt::Options& properties, const std::string& name) {
  const auto found = properties.find(name);
  if (found == properties.end()) return -1;
  if (const auto* value = std::get_if<float>(&found->second)) return static_cast<double>(*value);
  if (const auto* value = std::get_if<int64_t>(&found->second)) return static_cast<double>(*value);
  return -1;
}

// Of TPU programs: the reader knows their schedules alone.
void add_schedule(const pjrt::Executable& executable, plan::ProgramReport* report) {
  report->schedule =
      plan::schedule_cost(executable.optimized_program(), plan::parse_slice(report->topology));
  report->ici_bytes = report->schedule.ici_bytes;
  report->compiler_cycles = report->schedule.cycles;
  report->uncounted_loops = std::max(report->uncounted_loops, report->schedule.uncounted_loops);
}

// What the compiler says of the program it made.
void add_compiled(const pjrt::Executable& executable, plan::ProgramReport* report) {
  const pjrt::CompiledMemoryStats stats = executable.memory_stats();
  const int64_t named = report->weight_bytes + report->cache_bytes + report->optimizer_bytes;
  report->padding_bytes = std::max<int64_t>(0, stats.arguments - named);
  report->output_bytes = std::max<int64_t>(0, stats.outputs - stats.aliased);
  report->temporary_bytes = stats.temporaries;
  report->code_bytes = stats.generated_code;
  report->total_bytes = named + report->padding_bytes + report->output_bytes +
                        report->temporary_bytes + report->code_bytes;
  report->free_bytes = report->hbm_bytes - report->total_bytes;
  report->temporary_traffic_bytes = 2.0 * static_cast<double>(stats.temporaries);
  report->peak_bytes = stats.peak;
  if (plan::gpu_of_topology(report->topology) == nullptr) {
    add_schedule(executable, report);
  }
  const pjrt::Options properties = cost_analysis(executable);
  report->compiler_flops = property(properties, "flops");
  report->compiler_bytes = property(properties, "bytes accessed");
}

plan::ProgramReport compile_with(const AotRequest& request, const nn::DecoderSpec& spec,
                                 const pjrt::Topology& topology, const kernels::Target& target) {
  const plan::Chip& chip = plan::device_of_topology(request.topology);
  const auto devices = topology.devices();
  const EnginePlan plan = plan_of(request, spec, static_cast<int64_t>(devices.size()));
  const Bucket bucket = bucket_of(plan, request.phase);
  const DType dtype = request.engine.dtype;
  const WeightOptions weights{dtype, request.engine.expand_weights, request.engine.quantization};
  const std::unique_ptr<io::Checkpoint> checkpoint =
      request.weights.empty() ? nullptr : io::Checkpoint::open(request.weights);
  const nn::FormatOf format_of = checkpoint
                                     ? format_of_weights(*checkpoint, weights, spec.name_prefixes)
                                     : format_without_weights(weights, request.config);
  EngineProgram program =
      build_engine_program(spec, plan.shape, bucket, target, dtype, format_of, plan.layout);

  plan::ProgramReport report;
  report.phase = request.phase == Phase::kDecode ? "decode" : "prefill";
  report.topology = request.topology;
  report.device_kind = devices.at(0).kind;
  report.devices = static_cast<int64_t>(devices.size());
  report.tokens = bucket.tokens * plan.layout.replicas();
  report.sequences = bucket.sequences * plan.layout.replicas();
  report.max_model_len = plan.options.max_model_len;
  report.layers = request.layers == nn::Layers::kScanned ? "scanned" : "unrolled";
  report.hbm_bytes = chip.hbm_bytes;
  if (target.tpu) report.kernels = target.tpu->choices();
  add_arguments(program, plan.layout, &report);
  require_fit(report);
  add_cost(program, &report);
  compile_module(*program.module, topology, plan.layout.mesh(), request.with, &report);
  return report;
}

}  // namespace

void compile_module(const ir::Module& module, const pjrt::Topology& topology,
                    const parallel::Mesh& mesh, const CompileWith& with,
                    plan::ProgramReport* report) {
  const std::string text = module.to_string();
  report->program_text_bytes = static_cast<int64_t>(text.size());
  pjrt::CompileOptions options = compile_options(topology, mesh);
  pjrt::add_xla_flags(options, with.xla_flags);
  const auto start = std::chrono::steady_clock::now();
  const pjrt::Executable executable = topology.compile(text, options);
  report->compile_seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (!with.hlo_file.empty()) write_file(with.hlo_file, executable.optimized_program().code);
  add_compiled(executable, report);
  report->estimate =
      plan::estimate_step(plan::device_of_topology(report->topology), report->compute(),
                          report->moved_bytes(), report->ici_bytes);
  report->tokens_per_second = static_cast<double>(report->tokens) / report->estimate.seconds;
}

kernels::Platform platform_of_topology(const std::string& name) {
  return plan::gpu_of_topology(name) != nullptr ? kernels::Platform::kCuda
                                                : kernels::Platform::kTpu;
}

int64_t tpu_memory(const std::string& topology) {
  const bool tpu = platform_of_topology(topology) == kernels::Platform::kTpu;
  return tpu ? plan::device_of_topology(topology).hbm_bytes : 0;
}

std::string plugin_of_topology(const std::string& name) {
  return platform_of_topology(name) == kernels::Platform::kCuda ? "cuda" : "tpu";
}

kernels::Target target_of_topology(const std::string& name, bool custom_calls) {
  kernels::Target target;
  target.platform = platform_of_topology(name);
  if (target.platform != kernels::Platform::kTpu) return target;
  return tpu_target(plan::chip_of_topology(name), custom_calls);
}

pjrt::Topology create_topology(const std::string& name) {
  plan::device_of_topology(name);  // refuses an unknown name before anything is loaded
  if (const plan::Gpu* gpu = plan::gpu_of_topology(name)) {
    const int64_t count = plan::gpus_of_topology(name);
    const auto plugin = pjrt::load_plugin(pjrt::find_plugin("cuda"));
    // Partitions, hosts of each, devices of each.
    return pjrt::Topology::create(
        plugin, gpu->kind,
        {{"target_config", plan::target_config(*gpu)}, {"topology", fmt::format("1x1x{}", count)}});
  }
  const auto plugin = pjrt::load_plugin(pjrt::find_plugin("tpu"));
  try {
    return pjrt::Topology::create(plugin, name);
  } catch (const Error& error) {
    fail(Code::kInvalidArgument,
         "[topology] the TPU plugin knows no \"{}\": {}. Write CHIP:SHAPE, with two dimensions for "
         "v5e and v6e (v5e:2x2) and three for v4, v5p and tpu7x (v5p:2x2x1)",
         name, error.what());
  }
}

plan::ProgramReport compile_ahead(const AotRequest& request) {
  nn::DecoderSpec spec = models::decoder_from_config(request.config);
  if (request.first_layers > 0 && std::cmp_less(request.first_layers, spec.layers.size())) {
    spec.layers.resize(static_cast<size_t>(request.first_layers));
  }
  const pjrt::Topology topology = create_topology(request.topology);
  const kernels::Target target = target_of_topology(request.topology, request.engine.custom_calls);
  return kernels::without_refused(target.tpu.get(),
                                  [&] { return compile_with(request, spec, topology, target); });
}

}  // namespace ttpu::engine
