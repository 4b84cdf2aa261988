#include "ttpu/kernels/cpu/parallel.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace ttpu::kernels {
namespace {

void pause_briefly() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

// How long a helper watches for the next loop before it leaves its thread.
constexpr std::chrono::microseconds kLinger{300};
constexpr int kPausesBetweenYields = 64;
constexpr int kMaxHelpers = 64;

// The one loop that helpers may join. Odd `gate_` values are open loops, even ones closed.
class Gang {
 public:
  // Never destroyed: a helper may still be leaving while the process exits.
  static Gang& instance() {
    static Gang* gang = new Gang;
    return *gang;
  }

  bool try_run(TaskPool& pool, int64_t count, int64_t grain, internal::LoopBody body,
               void* context) {
    if (busy_.exchange(true, std::memory_order_acquire)) return false;
    body_ = body;
    context_ = context;
    count_ = count;
    grain_ = grain;
    next_.store(0, std::memory_order_relaxed);
    gate_.fetch_add(1);  // opens
    call_helpers(pool, std::min<int64_t>(pool.num_threads() - 1, (count + grain - 1) / grain - 1));
    work();
    gate_.fetch_add(1);  // closes: a helper that enters now sees it and turns back
    for (int spins = 0; inside_.load() != 0; ++spins) {
      if (spins % 1024 == 1023) std::this_thread::yield();
      pause_briefly();
    }
    busy_.store(false, std::memory_order_release);
    return true;
  }

 private:
  void work() {
    for (;;) {
      const int64_t begin = next_.fetch_add(grain_, std::memory_order_relaxed);
      if (begin >= count_) return;
      body_(context_, begin, std::min(begin + grain_, count_));
    }
  }

  void call_helpers(TaskPool& pool, int64_t wanted) {
    wanted = std::min<int64_t>(wanted, kMaxHelpers);
    int present = helpers_.load(std::memory_order_relaxed);
    while (present < wanted) {
      if (!helpers_.compare_exchange_weak(present, present + 1)) continue;
      if (!pool.schedule([](void*) { instance().help(); }, nullptr)) {
        helpers_.fetch_sub(1);
        return;
      }
      ++present;
    }
  }

  void help() {
    uint64_t served = 0;
    auto deadline = std::chrono::steady_clock::now() + kLinger;
    for (int spins = 0;; ++spins) {
      const uint64_t gate = gate_.load();
      if (gate % 2 == 1 && gate != served) {
        inside_.fetch_add(1);
        if (gate_.load() == gate) work();
        inside_.fetch_sub(1);
        served = gate;
        deadline = std::chrono::steady_clock::now() + kLinger;
        spins = 0;
      }
      if (spins % kPausesBetweenYields == kPausesBetweenYields - 1) {
        if (std::chrono::steady_clock::now() > deadline) break;
        std::this_thread::yield();
      }
      pause_briefly();
    }
    helpers_.fetch_sub(1);
  }

  alignas(64) std::atomic<uint64_t> gate_{0};
  internal::LoopBody body_ = nullptr;
  void* context_ = nullptr;
  int64_t count_ = 0;
  int64_t grain_ = 1;
  alignas(64) std::atomic<int64_t> next_{0};
  alignas(64) std::atomic<int> inside_{0};
  alignas(64) std::atomic<int> helpers_{0};
  std::atomic<bool> busy_{false};
};

class OwnThreads final : public TaskPool {
 public:
  explicit OwnThreads(int num_threads) {
    for (int i = 0; i < num_threads; ++i) threads_.emplace_back([this] { run(); });
  }
  ~OwnThreads() override {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }
  int num_threads() const override { return static_cast<int>(threads_.size()); }
  bool schedule(void (*task)(void*), void* data) override {
    {
      std::lock_guard lock(mutex_);
      tasks_.push_back({task, data});
    }
    wake_.notify_one();
    return true;
  }

 private:
  struct Task {
    void (*run)(void*);
    void* data;
  };
  // Tasks that are still queued run before the threads end, so that every helper leaves.
  void run() {
    for (;;) {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stopping_ || !tasks_.empty(); });
      if (tasks_.empty()) return;
      const Task task = tasks_.front();
      tasks_.pop_front();
      lock.unlock();
      task.run(task.data);
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Task> tasks_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace

std::unique_ptr<TaskPool> make_thread_pool(int num_threads) {
  return std::make_unique<OwnThreads>(num_threads);
}

void internal::run_loop(TaskPool* pool, int64_t count, int64_t grain, LoopBody body,
                        void* context) noexcept {
  if (count <= 0) return;
  grain = std::max<int64_t>(grain, 1);
  const bool alone = pool == nullptr || count <= grain || pool->num_threads() < 2;
  if (!alone && Gang::instance().try_run(*pool, count, grain, body, context)) return;
  for (int64_t begin = 0; begin < count; begin += grain) {
    body(context, begin, std::min(begin + grain, count));
  }
}

}  // namespace ttpu::kernels
