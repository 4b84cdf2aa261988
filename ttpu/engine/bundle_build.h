// Compiles all programs of an engine into a bundle.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "ttpu/engine/bundle.h"
#include "ttpu/engine/runner.h"

namespace ttpu::engine {

struct BundleRequest {
  std::filesystem::path model;  // a folder, a .gguf file, or a config's .json file alone
  EngineOptions engine;         // its device is what programs are compiled for, without a topology
  std::string topology;         // "v5e:2x2": for TPUs that need not be here
  std::filesystem::path folder;
  // Compiles a program for the topology and gives the serialized executable: in another process,
  // since the TPU compiler keeps the memory it took.
  // `devices`: those of the topology in the order of the mesh.
  std::function<std::string(const std::string& program, const std::string& text,
                            const std::vector<int>& devices)>
      compile;
};

// Gives what operators got that have a kernel for the TPU. Throws what the compiler says; no bundle
// is left then.
std::vector<kernels::KernelChoice> build_bundle(const BundleRequest& request,
                                                const Progress& progress = {});

// What BundleRequest::compile runs in that process.
std::string compile_for_topology(const std::string& topology, const std::string& text,
                                 const std::vector<int>& devices);

}  // namespace ttpu::engine
