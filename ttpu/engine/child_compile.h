// Programs compiled by a child process: the compiler keeps the memory it took, and may die.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "ttpu/base/json.h"
#include "ttpu/plan/report.h"

namespace ttpu::engine {

struct ChildCompile {
  std::vector<std::string> command;  // `ttpu compile ... --child PHASE`: prints one line of JSON
  std::chrono::seconds timeout{1800};
  std::string identity;  // of the model; with the command, the plugin and this program the key of
                         // what is kept in cache_dir()/plans. Empty: nothing is kept
};

// What the child tells. Throws the child's own error; kDeadlineExceeded when it takes too long,
// kResourceExhausted when the machine had no memory for it, kAborted or kInternal when it died,
// each with the end of what it wrote.
plan::ProgramReport compile_in_child(const ChildCompile& child);
// Whether it would be answered from what is kept.
bool is_kept(const ChildCompile& child);

}  // namespace ttpu::engine
