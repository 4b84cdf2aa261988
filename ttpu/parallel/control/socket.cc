#include "ttpu/parallel/control/socket.h"

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <random>
#include <utility>

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ttpu/base/error.h"
#include "ttpu/base/strings.h"

namespace ttpu::parallel {
namespace {

using Clock = std::chrono::steady_clock;

struct FreeAddresses {
  void operator()(addrinfo* list) const { ::freeaddrinfo(list); }
};

std::unique_ptr<addrinfo, FreeAddresses> resolve(const Address& address) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  const std::string port = std::to_string(address.port);
  const int error = ::getaddrinfo(address.host.c_str(), port.c_str(), &hints, &list);
  if (error != 0) {
    fail(Code::kUnavailable, "[control] the host '{}' is not known: {}", address.host,
         ::gai_strerror(error));
  }
  return std::unique_ptr<addrinfo, FreeAddresses>(list);
}

bool wait_for(const Descriptor& socket, short events, Clock::time_point deadline) {
  while (true) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    pollfd fd{socket.get(), events, 0};
    const int ready = left <= 0 ? 0 : ::poll(&fd, 1, static_cast<int>(left));
    if (ready >= 0 || errno != EINTR) return ready > 0;
  }
}

}  // namespace

Descriptor::Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  if (this != &other) {
    close();
    fd_ = std::exchange(other.fd_, -1);
  }
  return *this;
}

void Descriptor::close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

Address parse_address(std::string_view text) {
  const size_t colon = text.rfind(':');
  Address address;
  if (colon != std::string_view::npos) {
    std::string_view host = text.substr(0, colon);
    if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
    address.port = parse_count(text.substr(colon + 1)).value_or(-1);
    address.host = host;
  }
  require(!address.host.empty() && address.port > 0 && address.port < 65536,
          "[control] '{}' is no address; expected HOST:PORT", text);
  return address;
}

std::string to_string(const Address& address) {
  const bool v6 = address.host.find(':') != std::string::npos;
  return fmt::format("{}{}{}:{}", v6 ? "[" : "", address.host, v6 ? "]" : "", address.port);
}

namespace {

// Bound on all interfaces; closed, with errno, where that cannot be.
Descriptor bind_to(int port) {
  // Both families where the kernel has IPv6, else IPv4 alone.
  const bool v6 = Descriptor(::socket(AF_INET6, SOCK_STREAM, 0)).open();
  Descriptor socket(::socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;
  const int off = 0;
  ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (v6) ::setsockopt(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
  sockaddr_in6 six{};
  six.sin6_family = AF_INET6;
  six.sin6_port = htons(static_cast<uint16_t>(port));
  sockaddr_in four{};
  four.sin_family = AF_INET;
  four.sin_port = six.sin6_port;
  const auto* name =
      v6 ? reinterpret_cast<const sockaddr*>(&six) : reinterpret_cast<const sockaddr*>(&four);
  if (::bind(socket.get(), name, v6 ? sizeof(six) : sizeof(four)) != 0) return {};
  return socket;
}

}  // namespace

bool is_free(int port) { return bind_to(port).open(); }

int free_ports(int count) {
  constexpr int kFirst = 10000;
  constexpr int kEnd = 32768;  // Linux's ip_local_port_range begins here
  std::random_device source;
  for (int attempt = 0; attempt < 1000 && count < kEnd - kFirst; ++attempt) {
    const int port = std::uniform_int_distribution<int>(kFirst, kEnd - count)(source);
    int free = 0;
    while (free < count && is_free(port + free)) ++free;
    if (free == count) return port;
  }
  fail(Code::kResourceExhausted, "[control] no {} ports in a row are free from {} to {}", count,
       kFirst, kEnd - 1);
}

Descriptor listen_on(int port) {
  Descriptor socket = bind_to(port);
  if (!socket.open() || ::listen(socket.get(), SOMAXCONN) != 0) {
    fail(Code::kAlreadyExists, "[control] port {} cannot be used: {}; choose another", port,
         std::strerror(errno));
  }
  ::fcntl(socket.get(), F_SETFL, O_NONBLOCK);
  return socket;
}

int port_of(const Descriptor& socket) {
  sockaddr_storage name{};
  socklen_t size = sizeof(name);
  ::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&name), &size);
  return ntohs(name.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&name)->sin6_port
                                          : reinterpret_cast<sockaddr_in*>(&name)->sin_port);
}

void set_options(const Descriptor& socket) {
  const int on = 1;
  ::setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  ::fcntl(socket.get(), F_SETFL, O_NONBLOCK);
}

void send_some(const Descriptor& socket, std::string& out) {
  size_t sent = 0;
  while (socket.open() && sent < out.size()) {
    const ssize_t count =
        ::send(socket.get(), out.data() + sent, out.size() - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) break;
    sent = count < 0 ? out.size() : sent + static_cast<size_t>(count);
  }
  out.erase(0, sent);
}

Waker::Waker() : event_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}

void Waker::wake() const {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(event_.get(), &one, sizeof(one));
}

void Waker::sleep_again() const {
  uint64_t count = 0;
  while (::read(event_.get(), &count, sizeof(count)) > 0) {
  }
}

Descriptor connect_to(const Address& address, std::chrono::milliseconds timeout) {
  const Clock::time_point deadline = Clock::now() + timeout;
  const auto list = resolve(address);
  int error = EHOSTUNREACH;
  for (const addrinfo* entry = list.get(); entry != nullptr; entry = entry->ai_next) {
    Descriptor socket(::socket(entry->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    set_options(socket);
    if (::connect(socket.get(), entry->ai_addr, entry->ai_addrlen) == 0) return socket;
    error = errno;
    if (error != EINPROGRESS) continue;
    if (!wait_for(socket, POLLOUT, deadline)) {
      fail(Code::kDeadlineExceeded, "[control] {} does not answer", to_string(address));
    }
    socklen_t size = sizeof(error);
    ::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &size);
    if (error == 0) return socket;
  }
  fail(Code::kUnavailable, "[control] {} cannot be reached: {}", to_string(address),
       std::strerror(error));
}

std::string http_get(const std::string& url, const std::string& header,
                     std::chrono::milliseconds timeout) {
  constexpr std::string_view kScheme = "http://";
  require(url.starts_with(kScheme), "[launch] '{}' is no address of plain HTTP", url);
  const size_t slash = std::min(url.find('/', kScheme.size()), url.size());
  const std::string host = url.substr(kScheme.size(), slash - kScheme.size());
  const Address address = parse_address(host.find(':') == std::string::npos ? host + ":80" : host);
  const Clock::time_point deadline = Clock::now() + timeout;
  const Descriptor socket = connect_to(address, timeout);
  const std::string request =
      fmt::format("GET {} HTTP/1.0\r\nHost: {}\r\n{}\r\n\r\n",
                  slash < url.size() ? url.substr(slash) : "/", host, header);
  // A few hundred bytes always fit into a fresh socket's buffer.
  if (::send(socket.get(), request.data(), request.size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(request.size())) {
    fail(Code::kUnavailable, "[launch] {} takes no request", url);
  }
  std::string answer;
  std::array<char, 4096> block;
  while (true) {
    if (!wait_for(socket, POLLIN, deadline)) {
      fail(Code::kDeadlineExceeded, "[launch] {} does not answer", url);
    }
    const ssize_t count = ::recv(socket.get(), block.data(), block.size(), 0);
    if (count <= 0) break;
    answer.append(block.data(), static_cast<size_t>(count));
    require(answer.size() < (1U << 20), "[launch] {} answers with more than a megabyte", url);
  }
  const size_t body = answer.find("\r\n\r\n");
  const std::string status = answer.substr(0, answer.find("\r\n"));
  if (body == std::string::npos || status.find(" 200") == std::string::npos) {
    fail(Code::kNotFound, "[launch] {} answers '{}'", url, status);
  }
  return answer.substr(body + 4);
}

}  // namespace ttpu::parallel
