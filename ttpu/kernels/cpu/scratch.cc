#include "ttpu/kernels/cpu/scratch.h"

#include <new>

namespace ttpu::kernels {
namespace {

constexpr int kSlots = 4;
constexpr std::align_val_t kAlignment{64};

struct Buffers {
  void* data[kSlots] = {};
  size_t bytes[kSlots] = {};
  ~Buffers() {
    for (void* buffer : data) ::operator delete(buffer, kAlignment);
  }
};

}  // namespace

void* thread_scratch(int slot, size_t bytes) {
  thread_local Buffers buffers;
  if (buffers.bytes[slot] < bytes) {
    ::operator delete(buffers.data[slot], kAlignment);
    buffers.data[slot] = nullptr;
    buffers.bytes[slot] = 0;
    const size_t rounded = (bytes + 4095) / 4096 * 4096;
    buffers.data[slot] = ::operator new(rounded, kAlignment);
    buffers.bytes[slot] = rounded;
  }
  return buffers.data[slot];
}

}  // namespace ttpu::kernels
