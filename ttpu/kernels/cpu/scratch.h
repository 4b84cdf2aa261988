// A thread's own scratch memory, kept between calls and grown when needed.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ttpu::kernels {

// At least `bytes`, aligned to 64; contents undefined. Each slot (0 to 3) is a buffer of its own
// and is valid on this thread until the next call with the same slot. Throws std::bad_alloc.
void* thread_scratch(int slot, size_t bytes);

template <typename T>
T* thread_scratch_of(int slot, int64_t count) {
  return static_cast<T*>(thread_scratch(slot, static_cast<size_t>(count) * sizeof(T)));
}

}  // namespace ttpu::kernels
