// Flags that only one of a command's tasks has.
#pragma once

#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/ranges.h>

#include "ttpu/base/error.h"

namespace ttpu::cli {

struct TaskFlags {
  std::string task;  // "serve", "train"
  std::vector<const CLI::Option*> options;
};

// Throws kInvalidArgument where flags of `other` were given with `own`.
inline void refuse_flags_of(const std::string& command, const TaskFlags& other,
                            const TaskFlags& own) {
  std::vector<std::string> names;
  for (const CLI::Option* option : own.options) names.push_back(option->get_name());
  for (const CLI::Option* option : other.options) {
    require(option->count() == 0,
            "[{}] {} is for --task {} and this is --task {}, whose own flags are {}; leave it out, "
            "or take --task {}",
            command, option->get_name(), other.task, own.task, fmt::join(names, ", "), other.task);
  }
}

}  // namespace ttpu::cli
