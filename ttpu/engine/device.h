// The device that programs are built for.
#pragma once

#include <string>

#include "ttpu/kernels/registry.h"
#include "ttpu/pjrt/client.h"

namespace ttpu::engine {

// `device` is a plugin's name or path.
pjrt::Client make_client(const std::string& device);
// What programs for this client may call; with `custom_calls` false, no kernels of ours.
kernels::Target target_of(const pjrt::Client& client, bool custom_calls);

}  // namespace ttpu::engine
