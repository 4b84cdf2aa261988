// Diagnostics go to standard error through spdlog; standard output is for results.
#pragma once

#include <spdlog/spdlog.h>

namespace ttpu {

// Level from TTPU_LOG (trace, debug, info, warn, error, off), `warn` when unset.
void init_logging();

}  // namespace ttpu
