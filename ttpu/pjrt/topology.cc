#include "ttpu/pjrt/topology.h"

#include <algorithm>
#include <utility>

#include "ttpu/pjrt/capi.h"

namespace ttpu::pjrt {

namespace {

// libtpu divides by a size of zero. The shape follows the colon of "v5e:2x4"; names of other forms
// are for the plugin to judge.
void check_sizes(std::string_view name) {
  const size_t colon = name.find(':');
  if (colon == std::string_view::npos) return;
  for (size_t begin = colon + 1; begin <= name.size();) {
    const size_t end = std::min(name.find_first_of("x,", begin), name.size());
    const std::string_view size = name.substr(begin, end - begin);
    require(
        !size.empty() && size.find_first_not_of('0') != std::string_view::npos && size[0] != '-',
        "[topology] '{}' has a dimension of '{}'; expected positive sizes, as in v5e:2x4", name,
        size);
    begin = end + 1;
  }
}

}  // namespace

Topology Topology::create(std::shared_ptr<const Plugin> plugin, std::string_view name,
                          const Options& options) {
  require(plugin != nullptr, "[topology] no plugin was given; load one with load_plugin");
  check_sizes(name);
  const PJRT_Api* api = plugin->api();
  if (!TTPU_PJRT_HAS(api, PJRT_TopologyDescription_Create)) {
    fail(Code::kUnimplemented,
         "[topology] the plugin '{}' cannot describe devices it does not have",
         plugin->path().string());
  }
  const std::vector<PJRT_NamedValue> values = to_named_values(options);
  TTPU_PJRT_ARGS(PJRT_TopologyDescription_Create_Args, args);
  args.topology_name = name.data();
  args.topology_name_size = name.size();
  args.create_options = values.data();
  args.num_options = values.size();
  check(api, api->PJRT_TopologyDescription_Create(&args), fmt::format("topology '{}'", name));

  Topology topology;
  topology.topology_ = std::shared_ptr<PJRT_TopologyDescription>(
      args.topology, [api](PJRT_TopologyDescription* description) {
        TTPU_PJRT_ARGS(PJRT_TopologyDescription_Destroy_Args, destroy);
        destroy.topology = description;
        if (PJRT_Error* error = api->PJRT_TopologyDescription_Destroy(&destroy); error != nullptr) {
          take_error(api, error, "topology");
        }
      });
  topology.plugin_ = std::move(plugin);
  return topology;
}

std::string Topology::platform_name() const {
  TTPU_PJRT_ARGS(PJRT_TopologyDescription_PlatformName_Args, args);
  args.topology = topology_.get();
  const PJRT_Api* api = plugin_->api();
  check(api, api->PJRT_TopologyDescription_PlatformName(&args), "topology");
  return std::string(args.platform_name, args.platform_name_size);
}

std::string Topology::platform_version() const {
  TTPU_PJRT_ARGS(PJRT_TopologyDescription_PlatformVersion_Args, args);
  args.topology = topology_.get();
  const PJRT_Api* api = plugin_->api();
  check(api, api->PJRT_TopologyDescription_PlatformVersion(&args), "topology");
  return std::string(args.platform_version, args.platform_version_size);
}

std::vector<TopologyDevice> Topology::devices() const {
  const PJRT_Api* api = plugin_->api();
  TTPU_PJRT_ARGS(PJRT_TopologyDescription_GetDeviceDescriptions_Args, args);
  args.topology = topology_.get();
  check(api, api->PJRT_TopologyDescription_GetDeviceDescriptions(&args), "topology");
  std::vector<TopologyDevice> devices;
  for (size_t i = 0; i < args.num_descriptions; ++i) {
    TTPU_PJRT_ARGS(PJRT_DeviceDescription_Id_Args, id);
    id.device_description = args.descriptions[i];
    check(api, api->PJRT_DeviceDescription_Id(&id), "topology");
    TTPU_PJRT_ARGS(PJRT_DeviceDescription_Kind_Args, kind);
    kind.device_description = args.descriptions[i];
    check(api, api->PJRT_DeviceDescription_Kind(&kind), "topology");
    TTPU_PJRT_ARGS(PJRT_DeviceDescription_Attributes_Args, attributes);
    attributes.device_description = args.descriptions[i];
    check(api, api->PJRT_DeviceDescription_Attributes(&attributes), "topology");
    devices.push_back({id.id, std::string(kind.device_kind, kind.device_kind_size),
                       from_named_values(attributes.attributes, attributes.num_attributes)});
  }
  return devices;
}

Options Topology::attributes() const {
  TTPU_PJRT_ARGS(PJRT_TopologyDescription_Attributes_Args, args);
  args.topology = topology_.get();
  const PJRT_Api* api = plugin_->api();
  check(api, api->PJRT_TopologyDescription_Attributes(&args), "topology");
  return from_named_values(args.attributes, args.num_attributes);
}

Executable Topology::compile(std::string_view program, const CompileOptions& options) const {
  constexpr std::string_view kFormat = "mlir";
  std::string code(program);
  TTPU_PJRT_ARGS(PJRT_Program, source);
  source.code = code.data();
  source.code_size = code.size();
  source.format = kFormat.data();
  source.format_size = kFormat.size();
  TTPU_PJRT_ARGS(PJRT_Compile_Args, args);
  args.topology = topology_.get();
  args.program = &source;
  const PJRT_Api* api = plugin_->api();
  compile_with_hints(options, [&](const std::string& encoded) {
    args.compile_options = encoded.data();
    args.compile_options_size = encoded.size();
    check(api, api->PJRT_Compile(&args), "compile");
  });
  return Executable(api, args.executable, topology_);
}

}  // namespace ttpu::pjrt
