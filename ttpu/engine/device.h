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

// `device` is a plugin's name or path. The CPU plugin makes as many devices as are asked for; of
// another, throws kFailedPrecondition when it has fewer, those of other processes included.
pjrt::Client make_client(const std::string& device, int64_t num_devices = 1);
// Of a plugin by its name; what one by its path is for is not known before it is loaded, and kCpu.
kernels::Platform platform_named(const std::string& device);
// What programs for this client may call; with `custom_calls` false, no kernels of ours.
kernels::Target target_of(const pjrt::Client& client, bool custom_calls);
// The same for a TPU that need not be here.
kernels::Target tpu_target(const plan::Chip& chip, bool custom_calls);

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

// For a program of the mesh.
pjrt::CompileOptions compile_options(const pjrt::Client& client, const parallel::Mesh& mesh);
// The same for a whole topology that need not be here.
pjrt::CompileOptions compile_options(const pjrt::Topology& topology, const parallel::Mesh& mesh);

std::vector<std::string> kinds_of(const pjrt::Client& client, const parallel::Mesh& mesh);

}  // namespace ttpu::engine
