#include "ttpu/parallel/control/coordinator.h"

#include <algorithm>
#include <array>
#include <cerrno>

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ttpu/base/error.h"
#include "ttpu/base/json.h"

namespace ttpu::parallel {
namespace {

constexpr size_t kMostUnsent = 8 << 20;
constexpr size_t kMostAtOnce = 1 << 20;
constexpr size_t kLongestGreeting = 1 << 16;  // nobody fills the memory who has not said who it is
constexpr std::chrono::seconds kGoodbye(5);
constexpr std::chrono::seconds kStranger(10);

double seconds(std::chrono::milliseconds time) {
  return std::chrono::duration<double>(time).count();
}

// What there is to read, about `most` bytes of it, so that one who sends fast does not keep out the
// others; false when the other side has closed.
bool read_some(const Descriptor& socket, FrameReader& reader, size_t most) {
  std::array<char, 65536> block;
  for (size_t taken = 0; taken < most;) {
    const ssize_t count = ::recv(socket.get(), block.data(), block.size(), 0);
    if (count > 0) {
      reader.push({block.data(), static_cast<size_t>(count)});
      taken += static_cast<size_t>(count);
      continue;
    }
    if (count < 0 && errno == EINTR) continue;
    return count < 0 && errno == EAGAIN;
  }
  return true;
}

}  // namespace

Coordinator::Coordinator(const ControlOptions& options, ControlPlane& local)
    : options_(options),
      local_(local),
      listener_(listen_on(parse_address(options.coordinator).port)),
      peers_(static_cast<size_t>(options.processes)),
      thread_([this] { run(); }) {}

Coordinator::~Coordinator() {
  {
    std::unique_lock lock(mutex_);
    for (int process = 1; process < options_.processes; ++process) {
      deliver(process, {FrameKind::kBye});
    }
    waker_.wake();
    // Who closes first would cut off what the others still say.
    drained_.wait_for(lock, kGoodbye, [&] {
      return std::all_of(peers_.begin() + 1, peers_.end(),
                         [](const Peer& peer) { return peer.left || !peer.socket.open(); });
    });
    closing_ = true;
    waker_.wake();
  }
  thread_.join();
}

void Coordinator::take(Frame frame) {
  const std::scoped_lock lock(mutex_);
  handle(0, std::move(frame));
  waker_.wake();
}

size_t Coordinator::most_unsent() const {
  size_t most = 0;
  for (const Peer& peer : peers_) most = std::max(most, peer.out.size());
  return most;
}

void Coordinator::broadcast(std::string body) {
  std::unique_lock lock(mutex_);
  drained_.wait(lock, [&] { return !failure_.empty() || most_unsent() < kMostUnsent; });
  if (!failure_.empty()) throw Error(Code::kUnavailable, failure_);
  const std::string frame = encode({FrameKind::kBroadcast, {}, std::move(body)});
  bool unsent = false;
  for (size_t process = 1; process < peers_.size(); ++process) {
    Peer& peer = peers_[process];
    if (!peer.socket.open() || peer.left) continue;
    peer.out += frame;
    send_some(peer.socket, peer.out);
    unsent = unsent || !peer.out.empty();
  }
  if (unsent) waker_.wake();  // the thread sends the rest
}

void Coordinator::run() {
  std::unique_lock lock(mutex_);
  while (!closing_) {
    std::vector<pollfd> fds = {{listener_.get(), POLLIN, 0}, {waker_.fd(), POLLIN, 0}};
    const auto add = [&](const Peer& peer) {
      const int events = POLLIN | (peer.out.empty() ? 0 : POLLOUT);
      fds.push_back({peer.socket.get(), static_cast<short>(events), 0});
    };
    for (size_t process = 1; process < peers_.size(); ++process) add(peers_[process]);
    const size_t known = fds.size();
    for (const Peer& stranger : strangers_) add(stranger);
    lock.unlock();
    ::poll(fds.data(), fds.size(), 100);
    lock.lock();
    waker_.sleep_again();
    for (size_t i = 2; i < known; ++i) {
      Peer& peer = peers_[i - 1];
      if (!peer.socket.open() || peer.socket.get() != fds[i].fd) continue;
      if ((fds[i].revents & (POLLIN | POLLHUP | POLLERR)) != 0) read_from(static_cast<int>(i) - 1);
    }
    size_t place = known;
    for (auto stranger = strangers_.begin(); stranger != strangers_.end() && place < fds.size();) {
      const auto next = std::next(stranger);
      if (fds[place++].revents != 0) greet(stranger);
      stranger = next;
    }
    if (fds[0].revents != 0) accept_all();
    for (Peer& peer : peers_) send_some(peer.socket, peer.out);
    check_times();
    drained_.notify_all();
  }
}

void Coordinator::accept_all() {
  while (true) {
    Descriptor socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!socket.open()) return;
    set_options(socket);
    strangers_.emplace_back();
    strangers_.back().socket = std::move(socket);
    strangers_.back().reader.set_longest(kLongestGreeting);
  }
}

// A connection that has said something: it becomes a peer, or is sent away.
void Coordinator::greet(std::list<Peer>::iterator stranger) {
  const auto send_away = [&](const std::string& why) {
    stranger->out = encode({FrameKind::kFailed, {}, why});
    send_some(stranger->socket, stranger->out);
    strangers_.erase(stranger);
  };
  try {
    const bool open = read_some(stranger->socket, stranger->reader, kLongestGreeting);
    std::optional<Frame> frame = stranger->reader.next();
    if (!frame) {
      if (!open) strangers_.erase(stranger);
      return;
    }
    if (frame->kind != FrameKind::kHello || frame->name != options_.job) {
      return send_away(fmt::format("[control] {} belongs to another job; is one still running?",
                                   options_.coordinator));
    }
    const Json hello = parse_json(frame->body, "a greeting");
    const JsonView view(hello, "a greeting");
    const auto process = view.get<int64_t>("process");
    if (view.get<int64_t>("processes") != options_.processes || process < 1 ||
        process >= options_.processes) {
      return send_away(fmt::format("[control] process {} of {} does not fit: this job has {}",
                                   process, view.get<int64_t>("processes"), options_.processes));
    }
    Peer& peer = peers_[static_cast<size_t>(process)];
    if (peer.socket.open() || peer.left) {
      return send_away(fmt::format("[control] there are two of process {}", process));
    }
    peer = std::move(*stranger);
    peer.reader.set_longest(kLongestFrame);
    strangers_.erase(stranger);
    peer.heard = Clock::now();
    deliver(static_cast<int>(process), {FrameKind::kWelcome});
    handle_all(static_cast<int>(process));
  } catch (const Error&) {  // not one of ours, such as somebody who looks for open ports
    strangers_.erase(stranger);
  }
}

bool Coordinator::handle_all(int process) {
  try {
    FrameReader& reader = peers_[static_cast<size_t>(process)].reader;
    while (std::optional<Frame> frame = reader.next()) handle(process, std::move(*frame));
    return true;
  } catch (const Error& error) {
    lose(process, error.what());
    return false;
  }
}

void Coordinator::read_from(int process) {
  Peer& peer = peers_[static_cast<size_t>(process)];
  const bool open = read_some(peer.socket, peer.reader, kMostAtOnce);
  peer.heard = Clock::now();
  if (!handle_all(process) || open) return;
  if (peer.left) {
    peer.socket.close();
  } else {
    lose(process, "has ended without a goodbye");
  }
}

void Coordinator::deliver(int process, Frame frame) {
  if (process == 0) return local_.on_frame(std::move(frame));
  Peer& peer = peers_[static_cast<size_t>(process)];
  if (peer.socket.open() && !peer.left) peer.out += encode(frame);
}

void Coordinator::handle(int process, Frame frame) {
  switch (frame.kind) {
    case FrameKind::kSet: {
      const std::string& value = values_[frame.name] = std::move(frame.body);
      waits_.remove_if([&](const Wait& wait) {
        if (wait.barrier || wait.name != frame.name) return false;
        deliver(wait.process, {FrameKind::kValue, wait.name, value});
        return true;
      });
      break;
    }
    case FrameKind::kGet:
      if (const auto found = values_.find(frame.name); found != values_.end()) {
        deliver(process, {FrameKind::kValue, frame.name, found->second});
      } else {
        waits_.push_back({process, false, frame.name,
                          Clock::now() + std::chrono::milliseconds(frame.timeout_ms)});
      }
      break;
    case FrameKind::kBarrier:
      enter_barrier(process, frame);
      break;
    case FrameKind::kBye:
      peers_[static_cast<size_t>(process)].left = true;
      for (Wait& wait : waits_) {  // it will not come
        if (wait.barrier && !barriers_[wait.name].contains(process)) wait.deadline = Clock::now();
      }
      break;
    case FrameKind::kFailed:
      give_up(process, frame.body);
      break;
    default:  // a heartbeat
      break;
  }
}

void Coordinator::enter_barrier(int process, const Frame& frame) {
  std::set<int>& there = barriers_[frame.name];
  there.insert(process);
  if (there.size() < static_cast<size_t>(options_.processes)) {
    const bool hopeless = std::any_of(peers_.begin(), peers_.end(), [&](const Peer& peer) {
      return peer.left && !there.contains(static_cast<int>(&peer - peers_.data()));
    });
    const auto timeout = std::chrono::milliseconds(hopeless ? 0 : frame.timeout_ms);
    waits_.push_back({process, true, frame.name, Clock::now() + timeout});
    return;
  }
  barriers_.erase(frame.name);
  waits_.remove_if([&](const Wait& wait) { return wait.barrier && wait.name == frame.name; });
  for (int each = 0; each < options_.processes; ++each) {
    deliver(each, {FrameKind::kPassed, frame.name});
  }
}

std::string Coordinator::missing(const std::string& barrier) const {
  std::string names;
  const std::set<int>& there = barriers_.at(barrier);
  for (int process = 0; process < options_.processes; ++process) {
    if (there.contains(process)) continue;
    if (!names.empty()) names += ", ";
    names += name_of(options_, process);
    if (peers_[static_cast<size_t>(process)].left) names += ", which has ended";
  }
  return names;
}

void Coordinator::expire(const Wait& wait) {
  std::string why;
  if (!wait.barrier) {
    why = fmt::format("[control] nobody has set '{}' in time", wait.name);
  } else if (wait.name == kStartBarrier) {
    why = fmt::format("[control] not all have come up within {} s; missing: {}",
                      seconds(options_.start_timeout), missing(wait.name));
  } else {
    why = fmt::format("[control] not all have come to '{}' in time; missing: {}", wait.name,
                      missing(wait.name));
  }
  deliver(wait.process, {FrameKind::kError, wait.name, why});
}

void Coordinator::check_times() {
  const Clock::time_point now = Clock::now();
  waits_.remove_if([&](const Wait& wait) {
    if (wait.deadline > now) return false;
    expire(wait);
    return true;
  });
  strangers_.remove_if([&](const Peer& peer) { return now - peer.heard > kStranger; });
  const bool beat = now - last_beat_ > options_.peer_timeout / 5;
  if (beat) last_beat_ = now;
  for (int process = 1; process < options_.processes; ++process) {
    Peer& peer = peers_[static_cast<size_t>(process)];
    if (!peer.socket.open() || peer.left) continue;
    if (now - peer.heard > options_.peer_timeout) {
      lose(process, fmt::format("has not been heard of for {} s", seconds(options_.peer_timeout)));
    } else if (beat && peer.out.empty()) {
      deliver(process, {FrameKind::kHeartbeat});
    }
  }
}

void Coordinator::lose(int process, const std::string& how) {
  peers_[static_cast<size_t>(process)].socket.close();
  spread(fmt::format("[control] {} {}", name_of(options_, process), how));
}

void Coordinator::give_up(int process, const std::string& why) {
  spread(fmt::format("[control] {} gave up: {}", name_of(options_, process), why));
}

void Coordinator::fail_all(const std::string& why) {
  const std::scoped_lock lock(mutex_);
  spread(why);
  waker_.wake();
}

void Coordinator::spread(const std::string& why) {
  if (!failure_.empty()) return;
  failure_ = why;
  for (int process = 1; process < options_.processes; ++process) {
    deliver(process, {FrameKind::kFailed, {}, why});
  }
  local_.fail_all(why);
}

}  // namespace ttpu::parallel
