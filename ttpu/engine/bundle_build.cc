#include "ttpu/engine/bundle_build.h"

#include "ttpu/engine/aot.h"
#include "ttpu/engine/device.h"
#include "ttpu/io/config.h"
#include "ttpu/models/registry.h"
#include "ttpu/plan/gpus.h"

namespace ttpu::engine {
namespace {

// What is known of the model: its weights too, or its configuration alone.
struct Source {
  explicit Source(const BundleRequest& request) {
    if (request.model.extension() == ".json") {
      config = read_json(request.model);
    } else {
      config = io::load_model_files(request.model).config;
      checkpoint = io::Checkpoint::open(request.model);
    }
    spec = models::decoder_from_config(config);
  }

  nn::FormatOf format_of(const EngineOptions& options, const kernels::Target& target) const {
    const WeightOptions weights{options.dtype, options.expand_weights, options.quantization,
                                target.cpu_kernels()};
    if (checkpoint == nullptr) return format_without_weights(weights, config);
    return format_of_weights(*checkpoint, weights, spec.name_prefixes);
  }

  Json config;
  nn::DecoderSpec spec;
  std::unique_ptr<io::Checkpoint> checkpoint;
};

// Where programs are compiled, and for what.
struct Place {
  EnginePlan plan;
  kernels::Target target;
  BundleIdentity identity;
  std::string topology;
  std::function<std::string(const std::string& program, const std::string& text)> compile;
};

Place on_device(const BundleRequest& request, const Source& source) {
  const int64_t count = choose_layout(source.spec, request.engine.parallel).mesh().num_devices();
  const pjrt::Client client =
      make_client(request.engine.device, count, request.engine.memory_fraction);
  const EngineOptions engine = settled(source.spec, request.engine, 0, tpu_memory(client));
  Place place;
  place.target = target_of(client, engine.custom_calls);
  const int64_t budget = cache_budget(engine, client, count, [&] {
    return weight_bytes(source.spec, engine, place.target, source.format_of(engine, place.target));
  });
  place.plan = plan_engine(source.spec, engine, budget, 0, place.target.platform);
  place.identity.plugin = plugin_fingerprint(client.plugin(), client.platform_version());
  place.identity.devices = device_list(kinds_of(client, place.plan.layout.mesh()));
  place.topology = fmt::format("{}:{}", client.platform_name(), count);
  const pjrt::CompileOptions options = compile_options(client, place.plan.layout.mesh());
  place.compile = [client, options](const std::string&, const std::string& text) {
    return client.compile(text, options).info().serialize();
  };
  return place;
}

// What weights leave of the memory of `count` devices, as cache_budget().
int64_t budget_ahead(const BundleRequest& request, const EngineOptions& engine,
                     const Source& source, int64_t count) {
  const int64_t memory = plan::device_of_topology(request.topology).hbm_bytes;
  if (engine.num_blocks > 0) return count * memory;
  const kernels::Target target = target_of_topology(request.topology, false);
  const int64_t usable = usable_memory(target.platform, memory, engine.memory_fraction);
  const int64_t weights =
      weight_bytes(source.spec, engine, target, source.format_of(engine, target), count);
  return beside_weights(usable, weights, count, request.topology);
}

Place ahead(const BundleRequest& request, const Source& source) {
  const pjrt::Topology topology = create_topology(request.topology);
  std::vector<std::string> kinds;
  for (const pjrt::TopologyDevice& device : topology.devices()) kinds.push_back(device.kind);
  Place place;
  const auto count = static_cast<int64_t>(kinds.size());
  place.target = target_of_topology(request.topology, request.engine.custom_calls);
  const EngineOptions engine =
      settled(source.spec, request.engine, count, tpu_memory(request.topology));
  place.plan = plan_engine(source.spec, engine, budget_ahead(request, engine, source, count), count,
                           place.target.platform);
  const auto plugin = pjrt::load_plugin(pjrt::find_plugin(plugin_of_topology(request.topology)));
  place.identity.plugin = plugin_fingerprint(*plugin, topology.platform_version());
  place.identity.devices = device_list(kinds);
  place.topology = request.topology;
  const std::vector<int> order =
      compile_options(topology, place.plan.layout.mesh()).device_assignment;
  place.compile = [compile = request.compile, order](const std::string& program,
                                                     const std::string& text) {
    return compile(program, text, order);
  };
  return place;
}

}  // namespace

std::vector<kernels::KernelChoice> build_bundle(const BundleRequest& request,
                                                const Progress& progress) {
  const Source source(request);
  Place place = request.topology.empty() ? on_device(request, source) : ahead(request, source);
  BundleWriter writer(request.folder);
  const EnginePlan& plan = place.plan;
  const auto total = static_cast<int64_t>(plan.buckets.size()) + 2;
  int64_t done = 0;
  const auto add = [&](const std::string& name, const std::string& text,
                       const std::string& checked = "") {
    writer.add(name, text, place.compile(name, text), checked);
    if (progress) progress(++done, total);
  };
  add(kHistoryProgram,
      build_history_program(plan.shape.slots, source.spec.vocab, plan.layout)->to_string());
  add(kCopyProgram,
      build_copy_program(source.spec, plan.shape, plan.layout, place.target.platform)->to_string());
  const auto text_of = [&](const Bucket& bucket, const kernels::Target& target) {
    return build_engine_program(source.spec, plan.shape, bucket, target, request.engine.dtype,
                                source.format_of(request.engine, target), plan.layout)
        .module->to_string();
  };
  kernels::Target plain = place.target;
  plain.tpu = nullptr;
  for (const Bucket& bucket : plan.buckets) {
    const bool is_checked = place.target.tpu != nullptr && &bucket == plan.buckets.data();
    const std::string checked = is_checked ? text_of(bucket, plain) : "";
    kernels::without_refused(place.target.tpu.get(), [&] {
      add(program_name(bucket), text_of(bucket, place.target), checked);
    });
  }
  place.identity.model = config_digest(source.config);
  place.identity.weights = source.checkpoint ? weights_digest(*source.checkpoint) : "none";
  place.identity.version = TTPU_VERSION;
  writer.commit(place.identity, place.topology, std::filesystem::absolute(request.model).string(),
                plan);
  return place.target.tpu ? place.target.tpu->choices() : std::vector<kernels::KernelChoice>();
}

std::string compile_for_topology(const std::string& topology, const std::string& text,
                                 const std::vector<int>& devices) {
  const pjrt::Topology known = create_topology(topology);
  pjrt::CompileOptions options;
  options.num_partitions = static_cast<int>(devices.size());
  options.device_assignment = devices;
  options.hints = compiler_hints(platform_of_topology(topology));
  return known.compile(text, options).serialize();
}

}  // namespace ttpu::engine
