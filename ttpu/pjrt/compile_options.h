// What a program is compiled for. Encoded as XLA's CompileOptionsProto.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "ttpu/pjrt/options.h"

namespace ttpu::pjrt {

struct CompileOptions {
  int num_replicas = 1;
  int num_partitions = 1;
  bool use_spmd = true;
  bool use_shardy = true;
  // The device of [replica][partition], row-major; empty leaves the choice to the plugin.
  std::vector<int> device_assignment;
  // XLA flags by name, without dashes: {"xla_cpu_enable_fast_math", false}. They override XLA_FLAGS
  // for this program.
  Options overrides;
  // The same for what the program computes alike without; a plugin that does not know one of them
  // compiles without it.
  Options hints;
};

// Adds flags written as for XLA_FLAGS: "--xla_a=true --xla_b=3 --xla_c". Throws kInvalidArgument.
void add_xla_flags(CompileOptions& options, std::string_view flags);

// The bytes of the CompileOptionsProto. Throws kInvalidArgument if a count is below one or the
// assignment has not num_replicas * num_partitions devices.
std::string encode_compile_options(const CompileOptions& options);

// compile(the bytes), with those hints that the plugin knows.
void compile_with_hints(CompileOptions options,
                        const std::function<void(const std::string& encoded)>& compile);

}  // namespace ttpu::pjrt
