// An array on a device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "ttpu/base/shape.h"
#include "ttpu/pjrt/device.h"
#include "ttpu/pjrt/event.h"

struct PJRT_Buffer;

namespace ttpu::pjrt {

class ClientHandle;

// What may happen to host memory that is being transferred.
enum class HostBufferSemantics {
  kCopy,                // free to change when the call returns
  kImmutableUntilDone,  // must not change until the transfer's event is ready
  kZeroCopy,            // may become the buffer itself: must not change while the buffer lives
  kMutableZeroCopy,     // the same, and the device may write to it: such a buffer can be donated
};

// Movable, not copyable; frees the array. It keeps its client alive. Host arrays are dense and
// row-major; 4-bit elements are packed two to a byte, the lower half first.
class Buffer {
 public:
  Buffer() = default;
  Buffer(std::shared_ptr<const ClientHandle> client, PJRT_Buffer* buffer);
  ~Buffer();
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;

  explicit operator bool() const { return buffer_ != nullptr; }
  Shape shape() const;
  Device device() const;
  int64_t device_bytes() const;

  // Ready when the array has been computed or transferred; the event carries a failed step's error.
  Event ready() const;
  // Starts the transfer; `destination` has shape().byte_size() bytes and must live until the event
  // is ready. Throws kFailedPrecondition if the buffer was deleted or donated.
  [[nodiscard]] Event to_host(void* destination, int64_t bytes) const;
  // to_host and wait; T must be as wide as the element type.
  template <typename T>
  std::vector<T> to_vector() const {
    const int64_t bytes = shape().byte_size();
    std::vector<T> result(static_cast<size_t>(bytes) / sizeof(T));
    to_host(result.data(), bytes).wait();
    return result;
  }
  Buffer copy_to(const Device& device) const;

  // Gives the memory back now (once running programs are done with it).
  void free();
  // Freed, or donated to a program.
  bool deleted() const;
  // The address of the array, for plugins whose devices share the host's memory.
  uintptr_t unsafe_pointer() const;

  PJRT_Buffer* get() const { return buffer_; }

 private:
  std::shared_ptr<const ClientHandle> client_;
  PJRT_Buffer* buffer_ = nullptr;
};

// A host-to-device transfer that has been started.
struct Transfer {
  Buffer buffer;
  Event host_done;         // ready when the host memory may be changed or freed
  bool zero_copy = false;  // the buffer is the host memory (known for CPU; false elsewhere)
};

}  // namespace ttpu::pjrt
