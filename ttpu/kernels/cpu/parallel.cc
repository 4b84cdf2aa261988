#include "ttpu/kernels/cpu/parallel.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <limits>
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
constexpr int kPausesBetweenYields = 512;
constexpr int kMaxHelpers = 63;
constexpr int64_t kMostAhead = 384
                               << 10;  // bytes: they must stay in a core's L2 until they are read
constexpr int64_t kAheadAtOnce = 512;  // bytes between two looks at the gate

// The beginning of one share of what a loop will read, asked for little by little.
class Ahead {
 public:
  Ahead() = default;
  Ahead(const Reads& reads, int share, int shares) {
    int64_t total = 0, count = 0;
    for (const Reads::Array& array : reads.arrays) {
      total += array.bytes;
      count += array.bytes > 0 ? 1 : 0;
    }
    if (total == 0) return;
    int64_t skipped = total / shares * share;
    for (const Reads::Array& array : reads.arrays) {
      const int64_t offset = reads.side_by_side ? array.bytes / shares * share : skipped;
      skipped = std::max<int64_t>(skipped - array.bytes, 0);
      const int64_t most = reads.side_by_side ? kMostAhead / count : kMostAhead;
      const int64_t bytes = std::min(array.bytes - offset, most);
      if (bytes > 0) parts_[used_++] = {array.begin + offset, bytes};
      if (bytes > 0 && !reads.side_by_side) return;
    }
  }
  // False when there is nothing left to ask for.
  bool ask() {
    if (used_ == 0) return false;
    Reads::Array& part = parts_[used_ - 1];
    const int64_t bytes = std::min(part.bytes, kAheadAtOnce);
    for (int64_t line = 0; line < bytes; line += 64) __builtin_prefetch(part.begin + line, 0, 2);
    part = {part.begin + bytes, part.bytes - bytes};
    if (part.bytes == 0) --used_;
    return true;
  }

 private:
  std::array<Reads::Array, 3> parts_{};
  int used_ = 0;
};

// The pieces [next, end) of a loop that one thread has yet to do; others take from their far end.
class Share {
 public:
  void set(uint32_t next, uint32_t end) {
    range_.store(packed(next, end), std::memory_order_relaxed);
  }
  // The thread's own next piece.
  bool take(uint32_t& piece) {
    uint64_t range = range_.load(std::memory_order_relaxed);
    do {
      piece = next_of(range);
      if (piece >= end_of(range)) return false;
    } while (!range_.compare_exchange_weak(range, packed(piece + 1, end_of(range)),
                                           std::memory_order_relaxed));
    return true;
  }
  // Moves the later half of what is left (at least one piece) to `thief`, whose share is empty.
  bool give_half_to(Share& thief) {
    uint64_t range = range_.load(std::memory_order_relaxed);
    uint32_t middle = 0;
    do {
      if (next_of(range) >= end_of(range)) return false;
      middle = next_of(range) + (end_of(range) - next_of(range)) / 2;
    } while (!range_.compare_exchange_weak(range, packed(next_of(range), middle),
                                           std::memory_order_relaxed));
    thief.set(middle, end_of(range));
    return true;
  }

 private:
  static uint64_t packed(uint32_t next, uint32_t end) { return (uint64_t{end} << 32) | next; }
  static uint32_t next_of(uint64_t range) { return static_cast<uint32_t>(range); }
  static uint32_t end_of(uint64_t range) { return static_cast<uint32_t>(range >> 32); }

  alignas(64) std::atomic<uint64_t> range_{0};
};

// The one loop that helpers may join. Odd `gate_` values are open loops, even ones closed.
class Gang {
 public:
  // Never destroyed: a helper may still be leaving while the process exits.
  static Gang& instance() {
    static Gang* gang = new Gang;
    return *gang;
  }

  bool try_run(TaskPool& pool, int64_t count, int64_t grain, internal::LoopBody body, void* context,
               const Reads& next) {
    if (busy_.exchange(true, std::memory_order_acquire)) return false;
    body_ = body;
    context_ = context;
    count_ = count;
    grain_ = grain;
    next_ = next;
    const int64_t pieces = (count + grain - 1) / grain;
    const int64_t helpers = std::min<int64_t>({pool.num_threads() - 1, pieces - 1, kMaxHelpers});
    shares_in_use_ = static_cast<int>(helpers) + 1;
    for (int64_t i = 0; i <= helpers; ++i) {
      shares_[i].set(static_cast<uint32_t>(pieces * i / (helpers + 1)),
                     static_cast<uint32_t>(pieces * (i + 1) / (helpers + 1)));
    }
    next_share_.store(1, std::memory_order_relaxed);
    gate_.fetch_add(1);  // opens
    call_helpers(pool, static_cast<int>(helpers));
    work(0);
    gate_.fetch_add(1);  // closes: a helper that enters now sees it and turns back
    for (int spins = 0; inside_.load() != 0; ++spins) {
      if (spins % 1024 == 1023) std::this_thread::yield();
      pause_briefly();
    }
    busy_.store(false, std::memory_order_release);
    return true;
  }

 private:
  // Each thread goes through a stretch of its own, in order: two streams that take turns in one
  // stretch of memory get half of the bandwidth that two streams far apart get.
  void work(int own) {
    do {
      uint32_t piece = 0;
      while (shares_[own].take(piece)) {
        const int64_t begin = piece * grain_;
        body_(context_, begin, std::min(begin + grain_, count_));
      }
    } while (steal(own));
  }

  bool steal(int own) {
    for (int i = 1; i < shares_in_use_; ++i) {
      if (shares_[(own + i) % shares_in_use_].give_half_to(shares_[own])) return true;
    }
    return false;
  }

  void call_helpers(TaskPool& pool, int wanted) {
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
    Ahead ahead;
    auto deadline = std::chrono::steady_clock::now() + kLinger;
    for (int spins = 0;; ++spins) {
      const uint64_t gate = gate_.load();
      if (gate % 2 == 1 && gate != served) {
        inside_.fetch_add(1);
        if (gate_.load() == gate) {
          const int own = next_share_.fetch_add(1, std::memory_order_relaxed);
          if (own < shares_in_use_) {
            work(own);
            ahead = Ahead(next_, own, shares_in_use_);
          }
        }
        inside_.fetch_sub(1);
        served = gate;
        deadline = std::chrono::steady_clock::now() + kLinger;
        spins = 0;
      }
      if (spins % kPausesBetweenYields == kPausesBetweenYields - 1) {
        if (std::chrono::steady_clock::now() > deadline) break;
        std::this_thread::yield();
      }
      if (!ahead.ask()) pause_briefly();
    }
    helpers_.fetch_sub(1);
  }

  alignas(64) std::atomic<uint64_t> gate_{0};
  internal::LoopBody body_ = nullptr;
  void* context_ = nullptr;
  int64_t count_ = 0;
  int64_t grain_ = 1;
  Reads next_;
  int shares_in_use_ = 1;
  alignas(64) std::atomic<int> next_share_{1};
  Share shares_[kMaxHelpers + 1];
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

void internal::run_loop(TaskPool* pool, int64_t count, int64_t grain, LoopBody body, void* context,
                        const Reads& next) noexcept {
  if (count <= 0) return;
  grain = std::max<int64_t>(grain, 1);
  const bool alone = pool == nullptr || count <= grain || pool->num_threads() < 2 ||
                     count / grain >= std::numeric_limits<uint32_t>::max();
  if (!alone && Gang::instance().try_run(*pool, count, grain, body, context, next)) return;
  for (int64_t begin = 0; begin < count; begin += grain) {
    body(context, begin, std::min(begin + grain, count));
  }
}

}  // namespace ttpu::kernels
