// Runs a command in a child process.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ttpu {

struct SubprocessOptions {
  std::string input = {};                                 // given to its standard input
  std::optional<std::chrono::milliseconds> timeout = {};  // then the child is killed
  std::vector<std::pair<std::string, std::string>> environment =
      {};  // set on top of this process's
};

struct SubprocessResult {
  int exit_code = 0;
  std::string output;  // standard output
  std::string errors;  // standard error
};

// Runs `argv`; a name without a slash is looked up on PATH. Returns when the child has ended,
// whatever its exit code; when this process ends before, the child is killed. Throws kNotFound if
// it cannot be started, kDeadlineExceeded on the timeout, kResourceExhausted if it was killed (as
// the kernel does when memory runs out) and kAborted for another signal, each with the tail of its
// standard error.
SubprocessResult run_subprocess(const std::vector<std::string>& argv,
                                const SubprocessOptions& options = {});

}  // namespace ttpu
