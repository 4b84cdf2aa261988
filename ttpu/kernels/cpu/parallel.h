// Parallel loops over a pool of threads that belongs to someone else (the plugin's intra-op pool).
//
// A decode step runs one or two hundred short loops, so a loop must not cost a thread's wake-up.
// The first loop schedules helper tasks on the pool; a helper that has finished its share stays for
// a moment and watches for the next loop (it gives its core away when others want it), then leaves
// the thread to the pool. The calling thread always works too, and never waits for a helper that
// has not begun: a busy pool costs speed, never progress.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <type_traits>

namespace ttpu::kernels {

class TaskPool {
 public:
  virtual ~TaskPool() = default;
  // Threads that may run tasks at once. One or less: loops run on the caller alone.
  virtual int num_threads() const = 0;
  // Runs task(data) later on a thread of the pool, or not at all (false). Never in this call.
  virtual bool schedule(void (*task)(void*), void* data) = 0;
};

// A pool of its own threads, for tests and benchmarks; programs use the plugin's pool.
std::unique_ptr<TaskPool> make_thread_pool(int num_threads);

// Memory that a loop reads from its beginning to its end. Share s of n begins at s / n of each
// array when they are read side by side, else at s / n of all of them in a row.
struct Reads {
  struct Array {
    const char* begin = nullptr;
    int64_t bytes = 0;
  };
  std::array<Array, 3> arrays{};
  bool side_by_side = false;
};

namespace internal {
using LoopBody = void (*)(void* context, int64_t begin, int64_t end);
void run_loop(TaskPool* pool, int64_t count, int64_t grain, LoopBody body, void* context,
              const Reads& next) noexcept;
}  // namespace internal

// Calls body(begin, end) for disjoint ranges that cover [0, count), each of at most `grain` items,
// on the caller and the pool's threads; returns when all are done. `body` must not throw. A null
// pool, or a loop inside a loop, runs on the caller. Two callers at once: the later runs alone.
// `next` is what the loop after this one will probably read: a helper that waits for it brings the
// beginning of its share into its cache.
template <typename Body>
void parallel_for(TaskPool* pool, int64_t count, int64_t grain, Body&& body,
                  const Reads& next = {}) noexcept {
  using Plain = std::remove_reference_t<Body>;
  internal::run_loop(
      pool, count, grain,
      [](void* context, int64_t begin, int64_t end) {
        (*static_cast<Plain*>(context))(begin, end);
      },
      const_cast<void*>(static_cast<const void*>(&body)), next);
}

}  // namespace ttpu::kernels
