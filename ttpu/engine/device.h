// The device that programs are built for.
#pragma once

#include <string>
#include <vector>

#include "ttpu/kernels/registry.h"
#include "ttpu/pjrt/client.h"

namespace ttpu::engine {

// `device` is a plugin's name or path. The CPU plugin makes as many devices as are asked for; of
// another, throws kFailedPrecondition when it has fewer.
pjrt::Client make_client(const std::string& device, int64_t num_devices = 1);
// What programs for this client may call; with `custom_calls` false, no kernels of ours.
kernels::Target target_of(const pjrt::Client& client, bool custom_calls);

// The kinds of the client's first devices.
std::vector<std::string> kinds_of(const pjrt::Client& client, int64_t count);

}  // namespace ttpu::engine
