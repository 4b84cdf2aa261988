// A child process with all that it starts: nothing of it outlives stop().
#pragma once

#include <string>
#include <utility>
#include <vector>

#include <sys/types.h>

#include "ttpu/parallel/control/socket.h"

namespace ttpu::parallel {

using Variables = std::vector<std::pair<std::string, std::string>>;

// From now on what loses its parent below this process becomes its child, and not init's: so
// descendants() finds what has left its process group, too.
void adopt_orphans();

struct Child {
  pid_t pid = -1;
  Descriptor output;  // standard output, does not block
  Descriptor errors;  // standard error
  Descriptor input;   // standard input, with `with_input`; else it reads nothing
};

// Starts `argv` in a session of its own, with `variables` on top of this process's. The kernel
// kills it when this process dies, unless it has an input, whose end tells it. Throws kNotFound
// when it cannot be started.
Child start_child(const std::vector<std::string>& argv, const Variables& variables,
                  bool with_input = false);

// All below this process.
std::vector<pid_t> descendants();
void signal_descendants(int signal);

}  // namespace ttpu::parallel
