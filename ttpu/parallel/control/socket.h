// TCP sockets that are closed with their objects.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

namespace ttpu::parallel {

class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() { close(); }
  Descriptor(Descriptor&& other) noexcept;
  Descriptor& operator=(Descriptor&& other) noexcept;
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  bool open() const { return fd_ >= 0; }
  void close();

 private:
  int fd_ = -1;
};

struct Address {
  std::string host;
  int port = 0;
};
// "host:port", "[::1]:port". Throws kInvalidArgument.
Address parse_address(std::string_view text);
std::string to_string(const Address& address);

// Whether nobody listens there. Asking disturbs nobody else who asks.
bool is_free(int port);
// The first of `count` in a row where nobody listens, below those that the system gives to clients.
// Throws kResourceExhausted.
int free_ports(int count);
// On all interfaces; throws kAlreadyExists when the port is taken.
Descriptor listen_on(int port);
// The port of a socket that listens (port 0: any that is free).
int port_of(const Descriptor& socket);
// Throws kUnavailable with the reason; kDeadlineExceeded.
Descriptor connect_to(const Address& address, std::chrono::milliseconds timeout);
// The socket does not block, and small frames are sent at once.
void set_options(const Descriptor& socket);
// Sends the beginning of `out` that the socket takes now, and takes it off; all of it where the
// connection is broken, which reading tells.
void send_some(const Descriptor& socket, std::string& out);

// Ends another thread's poll().
class Waker {
 public:
  Waker();
  void wake() const;
  // For poll(): can be read from wake() to sleep_again().
  int fd() const { return event_.get(); }
  void sleep_again() const;

 private:
  Descriptor event_;
};

// Reads until the other side closes. Throws kUnavailable, kDeadlineExceeded. For plain HTTP.
std::string http_get(const std::string& url, const std::string& header,
                     std::chrono::milliseconds timeout);

}  // namespace ttpu::parallel
