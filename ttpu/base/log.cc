#include "ttpu/base/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>

#include "ttpu/base/file.h"

namespace ttpu {

void init_logging() {
  auto logger = spdlog::get("ttpu");
  if (logger == nullptr) logger = spdlog::stderr_color_mt("ttpu");
  logger->set_level(spdlog::level::from_str(env_or("TTPU_LOG", "warn")));
  logger->set_pattern("%^%l%$ %v");
  spdlog::set_default_logger(logger);
}

}  // namespace ttpu
