// The device that programs are built for.
#pragma once

#include <string>
#include <vector>

#include "ttpu/kernels/registry.h"
#include "ttpu/parallel/mesh.h"
#include "ttpu/pjrt/client.h"
#include "ttpu/pjrt/topology.h"
#include "ttpu/plan/chips.h"

namespace ttpu::engine {

// Of a device's memory, where nobody says otherwise.
inline constexpr double kMemoryFraction = 0.9;

// `device` is a plugin's name or path. The CPU plugin makes as many devices as are asked for; that
// for CUDA takes `memory_fraction` of the memory of so many GPUs at once, and leaves others alone.
// Throws kFailedPrecondition when there are fewer, those of other processes included.
pjrt::Client make_client(const std::string& device, int64_t num_devices = 1,
                         double memory_fraction = kMemoryFraction);
// What the plugin is asked for.
pjrt::Options client_options(const pjrt::Plugin& plugin, const std::string& device,
                             int64_t num_devices, double memory_fraction);
kernels::Platform platform_of(const pjrt::Client& client);

// What weights and caches may take of `bytes` of a device's memory; the rest is for what programs
// need while they run. On a GPU that, too, is within the fraction, since the plugin takes no more.
int64_t usable_memory(kernels::Platform platform, int64_t bytes, double memory_fraction);
// The same of the memory that a client's first device has free. Throws kUnavailable when its plugin
// does not say how much that is.
int64_t usable_memory(const pjrt::Client& client, double memory_fraction);
// What programs for this client may call; with `custom_calls` false, no kernels of ours.
kernels::Target target_of(const pjrt::Client& client, bool custom_calls);
// The same for a TPU that need not be here.
kernels::Target tpu_target(const plan::Chip& chip, bool custom_calls);

// Bytes of a device that is a known TPU; 0 of another.
int64_t tpu_memory(const pjrt::Client& client);

// The devices of a mesh, in its order: of the first of this process where they are enough, else of
// the first of all processes by their numbers. Then each process runs its part of one program. On a
// slice they are ordered so that those are neighbours that send to each other (parallel::arrange).
std::vector<pjrt::Device> mesh_devices(const pjrt::Client& client, const parallel::Mesh& mesh);

// Those of them that this process drives: what executables take arguments for, in that order.
struct OwnDevice {
  int64_t place = 0;  // in the mesh
  pjrt::Device device;
};
std::vector<OwnDevice> own_devices(const pjrt::Client& client, const parallel::Mesh& mesh);

// What the plugin's compiler is told of the engine's programs.
pjrt::Options compiler_hints(kernels::Platform platform);
// For a program of the mesh.
pjrt::CompileOptions compile_options(const pjrt::Client& client, const parallel::Mesh& mesh);
// The same for a whole topology that need not be here.
pjrt::CompileOptions compile_options(const pjrt::Topology& topology, const parallel::Mesh& mesh);

std::vector<std::string> kinds_of(const pjrt::Client& client, const parallel::Mesh& mesh);

}  // namespace ttpu::engine
