// HTTP/1.1 on one thread: connections, requests, whole and streamed replies, TLS. Boost.Beast and
// OpenSSL stay inside http_server.cc.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ttpu::server {

struct HttpOptions {
  std::string host = "127.0.0.1";
  int port = 8000;                         // 0: any that is free
  std::string certificate_file, key_file;  // PEM; both or none
  int64_t max_body_bytes = int64_t{8} << 20;
  int64_t max_connections = 4096;
  std::chrono::seconds idle_timeout{300};   // of a connection between two requests
  std::chrono::seconds header_timeout{30};  // from the first byte of a request
  std::chrono::seconds body_timeout{60};
  std::chrono::seconds write_timeout{60};  // of one write to a client that does not read
};

struct HttpRequest {
  std::string method;
  std::string path;  // without what follows `?`, percent signs decoded
  std::string body;
  std::string authorization;  // the header
  std::string id;             // the client's x-request-id, or one that was made
};

struct HttpReply {
  int status = 200;
  std::string body;
  std::string content_type = "application/json";
  std::vector<std::pair<std::string, std::string>> headers = {};
};

// One request and what is sent back: either reply(), or begin(), write() and end(). All of it on
// the server's thread; everything after the client has left does nothing.
class Exchange {
 public:
  virtual ~Exchange() = default;
  virtual void reply(HttpReply reply) = 0;
  // Sends the head; the body of `head` is not used.
  virtual void begin(const HttpReply& head) = 0;
  virtual void write(std::string_view piece) = 0;
  virtual void end() = 0;
  // Called once, when the client leaves before the end.
  virtual void on_gone(std::function<void()> callback) = 0;
};

// What the access log knows of a request.
struct AccessRecord {
  std::string id, remote, method, path;
  int status = 0;  // 499: the client left before the end
  int64_t bytes = 0;
  double seconds = 0;
};

struct HttpCallbacks {
  // May keep the exchange, to answer later. An exception becomes a 500.
  std::function<void(HttpRequest, std::shared_ptr<Exchange>)> on_request;
  // A request that no handler has seen, being malformed or too large: what to say.
  std::function<HttpReply(int status, std::string_view why)> on_refused;
  std::function<void(const AccessRecord&)> on_done;
  // SIGINT or SIGTERM.
  std::function<void()> on_signal;
};

class HttpServer {
 public:
  // Binds and listens. Throws kUnavailable when the address cannot be had, kInvalidArgument for
  // bad certificates.
  HttpServer(const HttpOptions& options, HttpCallbacks callbacks);
  ~HttpServer();

  int port() const;
  std::string url() const;
  // Serves on this thread, until it is told to stop.
  void run();
  // From any thread: `task` runs on the server's.
  void post(std::function<void()> task);
  // On the server's thread: no connection outlives its exchange, and run() returns once none has
  // one.
  void drain();
  // From any thread: run() returns at once.
  void stop();
  int64_t connections() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ttpu::server
