// Devices that this machine need not have, to compile for ahead of time.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "ttpu/pjrt/compile_options.h"
#include "ttpu/pjrt/executable.h"
#include "ttpu/pjrt/options.h"
#include "ttpu/pjrt/plugin.h"

struct PJRT_TopologyDescription;

namespace ttpu::pjrt {

struct TopologyDevice {
  int id = 0;
  std::string kind;  // "TPU v5 lite"
  Options attributes;
};

class Topology {
 public:
  // `name` as the plugin spells it: "v5e:2x2", "v5p:2x2x1" for libtpu. Throws the plugin's error.
  // A process that compiles for TPU many times grows by gigabytes: compile in child processes.
  static Topology create(std::shared_ptr<const Plugin> plugin, std::string_view name,
                         const Options& options = {});

  std::string platform_name() const;
  std::string platform_version() const;
  std::vector<TopologyDevice> devices() const;
  Options attributes() const;
  // Compiles without any device. The executable can be read and serialized, not run.
  Executable compile(std::string_view program, const CompileOptions& options) const;

 private:
  Topology() = default;
  std::shared_ptr<const Plugin> plugin_;
  std::shared_ptr<PJRT_TopologyDescription> topology_;
};

}  // namespace ttpu::pjrt
