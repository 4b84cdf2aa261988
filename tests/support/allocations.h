// Every call of operator new of a test program that links allocations.cc, which replaces the
// global allocation functions.
#pragma once

#include <cstdint>

namespace ttpu::testing {

// The calls so far, of all threads.
int64_t allocations();

// Counts the calls of the thread that it lives on, one counter at a time. What happens below a
// call of the PJRT plugin is left out, its own and that of a kernel which it chose to run at once
// in this thread: it is told by the frames that called.
class HostAllocations {
 public:
  HostAllocations();
  ~HostAllocations();
  HostAllocations(const HostAllocations&) = delete;
  HostAllocations& operator=(const HostAllocations&) = delete;

  int64_t count() const;
};

}  // namespace ttpu::testing
