// The processor time of a thread, which what other threads take away from it does not lengthen.
#pragma once

#include <ctime>

namespace ttpu {

// Seconds that the calling thread has run since it began.
inline double thread_seconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

}  // namespace ttpu
