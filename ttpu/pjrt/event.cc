#include "ttpu/pjrt/event.h"

#include <utility>

#include "ttpu/pjrt/capi.h"

namespace ttpu::pjrt {
namespace {

struct Callback {
  const PJRT_Api* api;
  std::function<void(const Error*)> run;
};

void run_callback(PJRT_Error* error, void* argument) {
  const std::unique_ptr<Callback> callback(static_cast<Callback*>(argument));
  if (error == nullptr) return callback->run(nullptr);
  const Error ours = take_error(callback->api, error, "event");
  callback->run(&ours);
}

}  // namespace

Event::~Event() {
  if (event_ == nullptr) return;
  TTPU_PJRT_ARGS(PJRT_Event_Destroy_Args, args);
  args.event = event_;
  if (PJRT_Error* error = api_->PJRT_Event_Destroy(&args); error != nullptr) {
    take_error(api_, error, "event");
  }
}

Event::Event(Event&& other) noexcept
    : api_(other.api_), event_(std::exchange(other.event_, nullptr)) {}

Event& Event::operator=(Event&& other) noexcept {
  std::swap(api_, other.api_);
  std::swap(event_, other.event_);
  return *this;
}

bool Event::ready() const {
  if (event_ == nullptr) return true;
  TTPU_PJRT_ARGS(PJRT_Event_IsReady_Args, args);
  args.event = event_;
  check(api_, api_->PJRT_Event_IsReady(&args), "event");
  return args.is_ready;
}

void Event::wait() const {
  if (event_ == nullptr) return;
  TTPU_PJRT_ARGS(PJRT_Event_Await_Args, args);
  args.event = event_;
  check(api_, api_->PJRT_Event_Await(&args), "event");
}

void Event::on_ready(std::function<void(const Error*)> callback) const {
  if (event_ == nullptr) return callback(nullptr);
  auto owned = std::make_unique<Callback>(Callback{api_, std::move(callback)});
  TTPU_PJRT_ARGS(PJRT_Event_OnReady_Args, args);
  args.event = event_;
  args.callback = run_callback;
  args.user_arg = owned.get();
  check(api_, api_->PJRT_Event_OnReady(&args), "event");
  owned.release();
}

}  // namespace ttpu::pjrt
