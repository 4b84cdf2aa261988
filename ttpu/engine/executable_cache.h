// Compiled programs on disk, so that a second start compiles nothing.
#pragma once

#include <string>

#include "ttpu/parallel/mesh.h"
#include "ttpu/pjrt/client.h"

namespace ttpu::engine {

struct CompiledStep {
  pjrt::LoadedExecutable executable;
  bool from_cache = false;
};

// Compiles `program`, or loads what was compiled before from cache_dir()/executables. The key is
// the text and the plugin's file and version; kernels of ours are found by name when a program is
// loaded. What cannot be loaded is compiled again and replaced; a cache that cannot be written is a
// warning.
CompiledStep compile_cached(const pjrt::Client& client, const std::string& program,
                            const parallel::Mesh& mesh = {});

// Whether compile_cached would find `program`.
bool is_cached(const pjrt::Client& client, const std::string& program,
               const parallel::Mesh& mesh = {});

}  // namespace ttpu::engine
