// What `ttpu plan` is asked whatever the task is. Each task has a file of its own, with its flags.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include <CLI/CLI.hpp>

#include "ttpu/engine/child_compile.h"

namespace ttpu::cli {

struct PlanFlags {
  std::string model;
  std::string topology;
  std::string strategy;
  int64_t tensor = 0;
  int64_t compile = 3;
  std::string prices;
  bool analytic_only = false;
  bool no_cache = false;
  bool json = false;
  int64_t timeout = 600;

  std::string name() const;  // of the model, for messages
  // Whether candidates are compiled. Throws kNotFound where they would be and there is no plugin.
  bool compiles() const;
};

// Adds the task's own flags to `group` and gives what it does once flags are parsed.
using PlanTask = std::function<void()>;
PlanTask add_serve_task(CLI::App& group, const std::shared_ptr<const PlanFlags>& flags);
PlanTask add_train_task(CLI::App& group, const std::shared_ptr<const PlanFlags>& flags);

// A child that compiles this model for a topology, with `arguments` beside; `config` is what tells
// one model from another.
engine::ChildCompile plan_child(const PlanFlags& flags, const Json& config,
                                const std::string& topology,
                                const std::vector<std::string>& arguments);
// Compiles, and says on standard error what takes the time.
plan::ProgramReport compile_and_tell(const engine::ChildCompile& child, const std::string& what);

// Once the plan is printed: where it is by formulas since no candidate could be compiled, an error,
// so that scripts do not take it for what they asked for.
void refuse_failed_compiles(bool failed);

}  // namespace ttpu::cli
