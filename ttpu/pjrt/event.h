// Something that a plugin finishes later: a transfer, a step.
#pragma once

#include <functional>
#include <memory>

#include "ttpu/base/error.h"

struct PJRT_Api;
struct PJRT_Event;

namespace ttpu::pjrt {

// Movable, not copyable. An empty event is ready. Letting an event go does not cancel the work.
class Event {
 public:
  Event() = default;
  Event(const PJRT_Api* api, PJRT_Event* event) : api_(api), event_(event) {}
  ~Event();
  Event(Event&& other) noexcept;
  Event& operator=(Event&& other) noexcept;

  bool ready() const;
  // Blocks; throws the plugin's error if the work failed.
  void wait() const;
  // Runs `callback` once the work is over, on a thread of the plugin or on this one if it is over
  // already; the argument is null or what went wrong. The callback must not throw.
  void on_ready(std::function<void(const Error*)> callback) const;

 private:
  const PJRT_Api* api_ = nullptr;
  PJRT_Event* event_ = nullptr;
};

}  // namespace ttpu::pjrt
