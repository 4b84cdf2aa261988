#include "ttpu/engine/aot.h"

#include <algorithm>
#include <chrono>
#include <optional>

#include "ttpu/engine/weight_loader.h"
#include "ttpu/models/registry.h"
#include "ttpu/pjrt/topology.h"

namespace ttpu::engine {
namespace {

constexpr int64_t kPageSize = 16;
constexpr int64_t kLongestByDefault = 4096;
constexpr const char* kMesh = "mesh";
constexpr const char* kAxis = "model";

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t kv_heads_of(const nn::LayerSpec& layer) {
  const auto* attention = std::get_if<nn::AttentionSpec>(&layer.attention);
  return attention == nullptr ? 0 : attention->kv_heads;
}

int64_t heads_of(const nn::LayerSpec& layer) {
  return std::visit([](const auto& attention) { return attention.heads; }, layer.attention);
}

// Which logical axes can be divided: heads only whole.
class Division {
 public:
  Division(const nn::DecoderSpec& spec, int64_t devices) : devices_(devices) {
    for (const nn::LayerSpec& layer : spec.layers) {
      heads_ = heads_ && heads_of(layer) % devices == 0;
      kv_heads_ = kv_heads_ && kv_heads_of(layer) != 0 && kv_heads_of(layer) % devices == 0;
    }
  }

  bool kv_heads() const { return kv_heads_; }
  // The first dimension that can be divided.
  std::optional<size_t> dimension(const nn::WeightDecl& decl) const {
    const Dims dims = nn::argument_shape(decl).dims;
    for (size_t i = 0; i < decl.axes.size() && i < dims.size(); ++i) {
      if (divides(decl.axes[i]) && dims[i] % devices_ == 0) return i;
    }
    return std::nullopt;
  }

 private:
  bool divides(const std::string& axis) const {
    if (axis == "heads") return heads_;
    if (axis == "kv_heads") return kv_heads_;
    return axis == "vocab" || axis == "mlp" || axis == "experts";
  }

  int64_t devices_;
  bool heads_ = true;
  bool kv_heads_ = true;
};

ir::Sharding sharding_of(int rank, std::optional<size_t> dimension) {
  ir::Sharding sharding{kMesh, std::vector<ir::DimSharding>(static_cast<size_t>(rank))};
  if (dimension) sharding.dims.at(*dimension).axes = {kAxis};
  return sharding;
}

StepShape step_shape(const AotRequest& request, int64_t max_model_len) {
  StepShape shape;
  shape.pages_per_sequence = ceil_div(max_model_len, kPageSize);
  shape.pages = request.batch * shape.pages_per_sequence;
  shape.page_size = kPageSize;
  shape.layers = request.layers;
  if (request.phase == Phase::kDecode) {
    shape.tokens = shape.sequences = shape.rows = request.batch;
  } else {
    shape.tokens = std::min(request.prefill_tokens, max_model_len);
  }
  return shape;
}

int64_t checked_length(const AotRequest& request, const nn::DecoderSpec& spec) {
  constexpr int64_t kMost = int64_t{1} << 20;
  require(request.batch > 0 && request.batch <= 4096, "[compile] a batch of {}; give 1 to 4096",
          request.batch);
  require(request.prefill_tokens > 0 && request.prefill_tokens <= kMost,
          "[compile] {} tokens of prefill; give 1 to {}", request.prefill_tokens, kMost);
  const int64_t allowed = std::min(spec.max_positions, kMost);
  require(request.max_model_len >= 0 && request.max_model_len <= allowed,
          "[compile] a length of {} tokens, but the model allows {}; lower --max-model-len",
          request.max_model_len, allowed);
  return request.max_model_len > 0 ? request.max_model_len : std::min(allowed, kLongestByDefault);
}

// The sizes that follow from the program alone.
void add_arguments(const StepProgram& program, const std::vector<int64_t>& divisors,
                   plan::ProgramReport* report) {
  const ir::Values& arguments = program.module->find_function("main")->arguments();
  const size_t first_cache = program.inputs.size();
  const size_t first_weight = first_cache + program.caches.size();
  int64_t whole = 0;
  for (size_t i = first_cache; i < arguments.size(); ++i) {
    const int64_t bytes = arguments[i].shape().byte_size() / divisors[i];
    (i < first_weight ? report->cache_bytes : report->weight_bytes) += bytes;
    if (divisors[i] == 1) whole += bytes;
  }
  const int64_t total = report->cache_bytes + report->weight_bytes;
  report->sharding =
      report->devices == 1
          ? "One device holds everything."
          : fmt::format(
                "Tensor parallel over {} devices; {:.1f}% of a device's weights and cache "
                "are replicated, since they do not divide evenly.",
                report->devices,
                100.0 * static_cast<double>(whole) /
                    static_cast<double>(std::max<int64_t>(total, 1)));
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

void add_cost(const StepProgram& program, plan::ProgramReport* report) {
  const ir::Function& function = *program.module->find_function("main");
  std::vector<plan::ArgumentRole> roles(function.arguments().size(), plan::ArgumentRole::kWeight);
  const auto caches = roles.begin() + static_cast<std::ptrdiff_t>(program.inputs.size());
  std::fill(roles.begin(), caches, plan::ArgumentRole::kInput);
  std::fill_n(caches, program.caches.size(), plan::ArgumentRole::kCache);
  const plan::ProgramCost cost = plan::program_cost(function, roles);
  // A device reads of weights and cache as much as it holds of them.
  const auto share = [&](double bytes, int64_t held, size_t first, size_t last) {
    int64_t whole = 0;
    for (size_t i = first; i < last; ++i) whole += function.arguments()[i].shape().byte_size();
    return whole == 0 ? 0 : bytes * static_cast<double>(held) / static_cast<double>(whole);
  };
  const size_t first_cache = program.inputs.size();
  const size_t first_weight = first_cache + program.caches.size();
  report->flops = cost.flops / static_cast<double>(report->devices);
  report->uncounted_loops = cost.uncounted_loops;
  report->weight_read_bytes =
      share(cost.weight_bytes, report->weight_bytes, first_weight, roles.size());
  report->cache_read_bytes =
      share(cost.cache_read_bytes, report->cache_bytes, first_cache, first_weight);
  report->cache_written_bytes =
      share(cost.cache_written_bytes, report->cache_bytes, first_cache, first_weight);
}

double property(const pjrt::Options& properties, const std::string& name) {
  const auto found = properties.find(name);
  if (found == properties.end()) return -1;
  if (const auto* value = std::get_if<float>(&found->second)) return static_cast<double>(*value);
  if (const auto* value = std::get_if<int64_t>(&found->second)) return static_cast<double>(*value);
  return -1;
}

// What the compiler says of the program it made.
void add_compiled(const pjrt::Executable& executable, plan::ProgramReport* report) {
  const pjrt::CompiledMemoryStats stats = executable.memory_stats();
  report->padding_bytes =
      std::max<int64_t>(0, stats.arguments - report->weight_bytes - report->cache_bytes);
  report->output_bytes = std::max<int64_t>(0, stats.outputs - stats.aliased);
  report->temporary_bytes = stats.temporaries;
  report->code_bytes = stats.generated_code;
  report->total_bytes = report->weight_bytes + report->cache_bytes + report->padding_bytes +
                        report->output_bytes + report->temporary_bytes + report->code_bytes;
  report->free_bytes = report->hbm_bytes - report->total_bytes;
  report->temporary_traffic_bytes = 2.0 * static_cast<double>(stats.temporaries);
  report->peak_bytes = stats.peak;
  report->schedule =
      plan::schedule_cost(executable.optimized_program(), plan::parse_slice(report->topology));
  report->ici_bytes = report->schedule.ici_bytes;
  report->compiler_cycles = report->schedule.cycles;
  report->uncounted_loops = std::max(report->uncounted_loops, report->schedule.uncounted_loops);
  const pjrt::Options properties = executable.cost_analysis();
  report->compiler_flops = property(properties, "flops");
  report->compiler_bytes = property(properties, "bytes accessed");
}

pjrt::Topology create_topology(const std::string& name) {
  plan::chip_of_topology(name);  // refuses what is not CHIP:SHAPE before anything is loaded
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

}  // namespace

std::vector<int64_t> shard_tensor_parallel(const nn::DecoderSpec& spec, StepProgram& program,
                                           int64_t devices) {
  ir::Function& function = *program.module->find_function("main");
  std::vector<int64_t> divisors(function.arguments().size(), 1);
  if (devices == 1) return divisors;
  program.module->add_mesh({kMesh, {{kAxis, devices}}});
  const Division division(spec, devices);
  const size_t first_cache = program.inputs.size();
  const size_t first_weight = first_cache + program.caches.size();
  for (size_t i = 0; i < divisors.size(); ++i) {
    std::optional<size_t> dimension;
    if (i >= first_weight) {
      dimension = division.dimension(program.weights[i - first_weight]);
    } else if (i >= first_cache && division.kv_heads()) {
      dimension = 2;  // [pages, page_size, heads, ...]
    }
    const ir::Value argument = function.arguments()[i];
    const ir::Sharding sharding = sharding_of(argument.rank(), dimension);
    function.set_sharding(argument, sharding);
    if (dimension) divisors[i] = devices;
    if (i >= first_cache && i < first_weight) {
      function.set_result_sharding(static_cast<int>(1 + i - first_cache), sharding);
    }
  }
  return divisors;
}

plan::ProgramReport compile_ahead(const AotRequest& request) {
  const nn::DecoderSpec spec = models::decoder_from_config(request.config);
  const int64_t length = checked_length(request, spec);
  const pjrt::Topology topology = create_topology(request.topology);
  const plan::Chip& chip = plan::chip_of_topology(request.topology);
  const auto devices = topology.devices();
  const StepShape shape = step_shape(request, length);
  kernels::Target target;
  target.platform = kernels::Platform::kTpu;
  target.custom_calls = false;
  StepProgram program = build_step_program(spec, shape, target, request.dtype, request.dtype,
                                           dense_format(request.dtype));

  plan::ProgramReport report;
  report.phase = request.phase == Phase::kDecode ? "decode" : "prefill";
  report.topology = request.topology;
  report.device_kind = devices.at(0).kind;
  report.devices = static_cast<int64_t>(devices.size());
  report.tokens = shape.tokens;
  report.sequences = shape.sequences;
  report.max_model_len = length;
  report.layers = request.layers == nn::Layers::kScanned ? "scanned" : "unrolled";
  report.hbm_bytes = chip.hbm_bytes;
  const std::vector<int64_t> divisors = shard_tensor_parallel(spec, program, report.devices);
  add_arguments(program, divisors, &report);
  require_fit(report);
  add_cost(program, &report);

  const std::string text = program.module->to_string();
  report.program_text_bytes = static_cast<int64_t>(text.size());
  pjrt::CompileOptions options;
  options.num_partitions = static_cast<int>(report.devices);
  const auto start = std::chrono::steady_clock::now();
  const pjrt::Executable executable = topology.compile(text, options);
  report.compile_seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  add_compiled(executable, &report);
  report.estimate = plan::estimate_step(chip, report.flops, report.moved_bytes(), report.ici_bytes);
  report.tokens_per_second = static_cast<double>(report.tokens) / report.estimate.seconds;
  return report;
}

}  // namespace ttpu::engine
