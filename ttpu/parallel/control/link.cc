#include "ttpu/parallel/control/link.h"

#include <array>
#include <cerrno>

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ttpu/base/error.h"
#include "ttpu/base/json.h"

namespace ttpu::parallel {
namespace {

constexpr std::chrono::milliseconds kBetweenTries(100);
constexpr std::chrono::milliseconds kOneTry(5000);

}  // namespace

Link::Link(const ControlOptions& options, ControlPlane& plane) : options_(options), plane_(plane) {
  greet();
  thread_ = std::thread([this] { run(); });
}

Link::~Link() {
  {
    const std::scoped_lock lock(mutex_);
    out_ += encode({FrameKind::kBye});
    closing_ = true;
  }
  resume();
  thread_.join();
}

void Link::send(const Frame& frame) {
  {
    const std::scoped_lock lock(mutex_);
    out_ += encode(frame);
  }
  resume();
}

void Link::greet() {
  const Address address = parse_address(options_.coordinator);
  const Clock::time_point deadline = Clock::now() + options_.start_timeout;
  while (true) {
    try {
      socket_ = connect_to(address, kOneTry);
      break;
    } catch (const Error& error) {
      if (Clock::now() < deadline) {
        std::this_thread::sleep_for(kBetweenTries);
        continue;
      }
      fail(Code::kDeadlineExceeded,
           "[control] {} has not come up within {} s: {}; look whether it runs, and whether the "
           "port is open between the hosts",
           name_of(options_, 0), std::chrono::duration<double>(options_.start_timeout).count(),
           error.what());
    }
  }
  const Json hello = {{"process", options_.process}, {"processes", options_.processes}};
  out_ = encode({FrameKind::kHello, options_.job, hello.dump()});
}

void Link::run() {
  Clock::time_point heard = Clock::now();
  Clock::time_point said = heard;
  while (true) {
    bool closing = false;
    bool unsent = false;
    {
      const std::scoped_lock lock(mutex_);
      send_some(socket_, out_);
      closing = closing_;
      unsent = !out_.empty();
    }
    if (closing && !unsent) return;
    const bool full = plane_.is_full();
    const int events = (full ? 0 : POLLIN) | (unsent ? POLLOUT : 0);
    std::array<pollfd, 2> fds = {
        {{socket_.get(), static_cast<short>(events), 0}, {waker_.fd(), POLLIN, 0}}};
    ::poll(fds.data(), fds.size(), 100);
    waker_.sleep_again();
    const Clock::time_point now = Clock::now();
    if (full || fds[0].revents != 0) heard = now;
    if ((fds[0].revents & (POLLIN | POLLHUP | POLLERR)) != 0 && !read()) return;
    if (now - heard > options_.peer_timeout) {
      plane_.fail_all(fmt::format("[control] {} has not been heard of for {} s",
                                  name_of(options_, 0),
                                  std::chrono::duration<double>(options_.peer_timeout).count()));
      return;
    }
    if (now - said > options_.peer_timeout / 5) {
      said = now;
      const std::scoped_lock lock(mutex_);
      if (out_.empty()) out_ = encode({FrameKind::kHeartbeat});
    }
  }
}

bool Link::read() {
  std::array<char, 65536> block;
  const ssize_t count = ::recv(socket_.get(), block.data(), block.size(), 0);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return true;
  if (count > 0) reader_.push({block.data(), static_cast<size_t>(count)});
  try {
    while (std::optional<Frame> frame = reader_.next()) {
      if (frame->kind == FrameKind::kFailed) {
        plane_.fail_all(frame->body);
        return false;
      }
      plane_.on_frame(std::move(*frame));
    }
  } catch (const Error& error) {
    plane_.fail_all(error.what());
    return false;
  }
  if (count <= 0) {
    plane_.fail_all(fmt::format("[control] {} has ended without a goodbye", name_of(options_, 0)));
  }
  return count > 0;
}

}  // namespace ttpu::parallel
