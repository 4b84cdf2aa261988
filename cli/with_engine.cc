#include "cli/with_engine.h"

#include <csignal>
#include <cstdio>
#include <memory>

#include "ttpu/base/error.h"
#include "ttpu/base/log.h"
#include "ttpu/parallel/control/control_plane.h"

namespace ttpu::cli {
namespace {

// A signal to end reaches all processes. The first one decides what becomes of it; a second signal
// ends this one, too.
void leave_signals_to_the_leader() {
  struct sigaction action {};
  action.sa_handler = [](int) {};
  action.sa_flags = static_cast<int>(SA_RESETHAND | SA_RESTART);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaction(signal, &action, nullptr);
}

void follow(engine::Engine& engine, const parallel::ControlPlane& control) {
  std::fprintf(stderr, "%s follows %s\n", control.name(control.process()).c_str(),
               control.name(0).c_str());
  leave_signals_to_the_leader();
  const int64_t steps = engine.follow();
  spdlog::info("[processes] {} has done {} steps", control.name(control.process()), steps);
}

}  // namespace

bool follows_another() {
  const auto processes = parallel::control_options_from_environment();
  return processes && processes->process > 0;
}

void with_engine(const std::filesystem::path& path, engine::EngineOptions options, const Lead& lead,
                 const engine::Progress& progress) {
  const auto processes = parallel::control_options_from_environment();
  if (!processes) {
    engine::Engine engine(path, options, progress);
    return lead(engine);
  }
  const auto control = std::make_shared<parallel::ControlPlane>(*processes);
  options.control = control;
  try {
    const bool leads = control->process() == 0;
    engine::Engine engine(path, options, leads ? progress : engine::Progress());
    if (leads) return lead(engine);
    follow(engine, *control);
  } catch (const std::exception& error) {
    control->give_up(error.what());
    throw;
  }
}

void with_engine(const ModelFlags& flags, const Lead& lead) {
  engine::validate(flags.sampling, INT32_MAX);  // before a large file is read
  with_engine(model_path(flags), with_bundle(flags, engine_options(flags)), lead);
}

}  // namespace ttpu::cli
