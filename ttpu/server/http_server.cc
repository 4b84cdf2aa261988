#include "ttpu/server/http_server.h"

#include <atomic>
#include <csignal>
#include <optional>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>

#include "ttpu/base/error.h"
#include "ttpu/base/log.h"
#include "ttpu/server/ids.h"

namespace ttpu::server {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using asio::ip::tcp;
using Clock = std::chrono::steady_clock;
using ErrorCode = boost::system::error_code;
using TlsStream = asio::ssl::stream<tcp::socket>;

constexpr auto kAwait = asio::as_tuple(asio::use_awaitable);
constexpr uint32_t kMostHeaderBytes = 32 << 10;
constexpr std::chrono::seconds kLinger{2};  // for a client to read the reply and close

// What all connections of a server share.
struct Shared {
  HttpOptions options;
  HttpCallbacks callbacks;
  std::atomic<int64_t> connections{0};
  int64_t exchanges = 0;  // not yet sent to the end
  bool draining = false;
  asio::io_context io{1};  // holds the connections, and so goes first

  void exchange_done() {
    --exchanges;
    stop_if_drained();
  }
  void stop_if_drained() {
    if (draining && exchanges == 0) io.stop();
  }
};

std::string_view view(boost::beast::string_view text) { return {text.data(), text.size()}; }

std::string head_of(int status, const HttpReply& reply, const std::string& id) {
  const auto reason = http::obsolete_reason(http::int_to_status(static_cast<unsigned>(status)));
  std::string head =
      fmt::format("HTTP/1.1 {} {}\r\nserver: ttpu\r\ncontent-type: {}\r\nx-request-id: {}\r\n",
                  status, view(reason), reply.content_type, id);
  for (const auto& [name, value] : reply.headers) head += fmt::format("{}: {}\r\n", name, value);
  return head;
}

// The side of a connection that an exchange talks to; the stream may be plain or TLS.
class Connection {
 public:
  explicit Connection(Shared& shared) : shared_(shared) { ++shared_.connections; }
  virtual ~Connection() { --shared_.connections; }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  // `last`: with this the exchange is complete.
  virtual void send(std::string_view bytes, bool last) = 0;
  virtual bool closed() const = 0;
  Shared& shared() { return shared_; }

 protected:
  Shared& shared_;
};

class ExchangeOnConnection final : public Exchange {
 public:
  ExchangeOnConnection(std::shared_ptr<Connection> connection, AccessRecord record, bool http11,
                       bool keep_alive)
      : connection_(std::move(connection)),
        record_(std::move(record)),
        http11_(http11),
        keep_alive_(keep_alive) {
    ++connection_->shared().exchanges;
  }
  // A handler that forgets its exchange must not leave the client waiting.
  ~ExchangeOnConnection() override { abandon(); }

  void reply(HttpReply reply) override {
    if (over_ || begun_) return;
    record_.status = reply.status;
    std::string text = head_of(reply.status, reply, record_.id);
    text += fmt::format("content-length: {}\r\n", reply.body.size());
    text += connection_header();
    if (record_.method != "HEAD") text += reply.body;
    record_.bytes = static_cast<int64_t>(reply.body.size());
    finish(text);
  }

  void begin(const HttpReply& head) override {
    if (over_ || begun_) return;
    begun_ = true;
    record_.status = head.status;
    if (!http11_) keep_alive_ = false;  // the end of the body is the end of the connection
    std::string text = head_of(head.status, head, record_.id);
    if (http11_) text += "transfer-encoding: chunked\r\n";
    connection_->send(text + connection_header(), false);
  }

  void write(std::string_view piece) override {
    if (over_ || !begun_ || piece.empty()) return;
    record_.bytes += static_cast<int64_t>(piece.size());
    connection_->send(
        http11_ ? fmt::format("{:x}\r\n{}\r\n", piece.size(), piece) : std::string(piece), false);
  }

  void end() override {
    if (over_ || !begun_) return;
    finish(http11_ ? "0\r\n\r\n" : "");
  }

  void on_gone(std::function<void()> callback) override { on_gone_ = std::move(callback); }

  // The client has left.
  void abandon() {
    if (over_) return;
    over_ = true;
    record_.status = 499;
    report();
    if (const auto callback = std::move(on_gone_)) callback();
    connection_->send("", true);
    connection_.reset();
  }

  bool over() const { return over_; }
  bool keep_alive() const { return keep_alive_ && !draining_; }

 private:
  std::string connection_header() {
    draining_ = connection_->shared().draining;
    return keep_alive() ? "\r\n" : "connection: close\r\n\r\n";
  }
  void finish(std::string_view last) {
    over_ = true;
    on_gone_ = nullptr;
    report();
    const auto connection = std::move(connection_);
    connection->send(last, true);
  }
  void report() {
    record_.seconds = std::chrono::duration<double>(Clock::now() - start_).count();
    const auto& on_done = connection_->shared().callbacks.on_done;
    if (on_done) on_done(record_);
  }

  std::shared_ptr<Connection> connection_;
  AccessRecord record_;
  bool http11_;
  bool keep_alive_;
  bool draining_ = false;
  bool begun_ = false;
  bool over_ = false;
  std::function<void()> on_gone_;
  Clock::time_point start_ = Clock::now();
};

// `%41` is `A`; what is no code stays.
std::string percent_decoded(std::string_view text) {
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    const char lower = static_cast<char>(c | 0x20);
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
  };
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() && digit(text[i + 1]) >= 0 &&
        digit(text[i + 2]) >= 0) {
      out += static_cast<char>(digit(text[i + 1]) * 16 + digit(text[i + 2]));
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

// A reader that never stops reading, so that it sees at once when the client leaves, and a writer
// that lives as long as there is something to write.
template <typename Stream>
class StreamConnection final : public Connection,
                               public std::enable_shared_from_this<StreamConnection<Stream>> {
 public:
  StreamConnection(Shared& shared, Stream stream)
      : Connection(shared),
        stream_(std::move(stream)),
        read_timer_(shared.io),
        write_timer_(shared.io),
        answered_(shared.io) {
    ErrorCode ignored;
    socket().set_option(tcp::no_delay(true), ignored);
    const auto remote = socket().remote_endpoint(ignored);
    if (!ignored) remote_ = remote.address().to_string();
  }

  asio::awaitable<void> serve() {
    const auto self = this->shared_from_this();
    co_await read_requests();
    if (const auto exchange = exchange_.lock()) exchange->abandon();
    if (!writing_) close();
    reading_ = false;
  }

  void send(std::string_view bytes, bool last) override {
    if (!closed_) queue_ += bytes;
    answer_complete_ = answer_complete_ || last;
    if (writing_) return;
    writing_ = true;
    asio::co_spawn(shared_.io, write_queue(this->shared_from_this()), asio::detached);
  }

  bool closed() const override { return closed_; }

 private:
  tcp::socket& socket() {
    if constexpr (std::is_same_v<Stream, TlsStream>) {
      return stream_.next_layer();
    } else {
      return stream_;
    }
  }

  void close() {
    if (closed_) return;
    closed_ = true;
    read_timer_.cancel();
    write_timer_.cancel();
    answered_.cancel();
    ErrorCode ignored;
    socket().shutdown(tcp::socket::shutdown_both, ignored);
    socket().close(ignored);
  }

  // Closes the connection unless the timer is cancelled before.
  void close_after(asio::steady_timer& timer, std::chrono::seconds time) {
    timer.expires_after(time);
    timer.async_wait([weak = this->weak_from_this(), &timer](const ErrorCode& error) {
      const auto self = weak.lock();
      // A timer that was set anew after it had expired has a later end.
      if (self && !error && timer.expiry() <= Clock::now()) self->close();
    });
  }

  asio::awaitable<void> read_requests() {
    if constexpr (std::is_same_v<Stream, TlsStream>) {
      close_after(read_timer_, shared_.options.header_timeout);
      const auto [error] = co_await stream_.async_handshake(TlsStream::server, kAwait);
      if (error) co_return;
    }
    while (!closed_) {
      if (buffer_.size() == 0 || closing_) {
        at_rest_ = true;
        if (!busy_ && !closing_) close_after(read_timer_, shared_.options.idle_timeout);
        if (busy_) read_timer_.cancel();
        const auto [error, count] = co_await stream_.async_read_some(buffer_.prepare(4096), kAwait);
        at_rest_ = false;
        if (error) co_return;
        if (closing_) continue;  // what comes after the last request is not read
        buffer_.commit(count);
      }
      http::request_parser<http::string_body> parser;
      const std::optional<ErrorCode> error = co_await read_request(parser);
      while (busy_ && !closed_) {
        answered_.expires_at(asio::steady_timer::time_point::max());
        co_await answered_.async_wait(kAwait);
      }
      if (closed_ || closing_) continue;
      if (error) {
        refuse(*error);
      } else {
        dispatch(parser.release());
      }
    }
  }

  // None when all is well.
  asio::awaitable<std::optional<ErrorCode>> read_request(
      http::request_parser<http::string_body>& parser) {
    parser.header_limit(kMostHeaderBytes);
    parser.body_limit(static_cast<uint64_t>(shared_.options.max_body_bytes));
    close_after(read_timer_, shared_.options.header_timeout);
    {
      const auto [error, count] =
          co_await http::async_read_header(stream_, buffer_, parser, kAwait);
      if (error) co_return error;
    }
    if (boost::beast::iequals(parser.get()[http::field::expect], "100-continue") && !busy_) {
      static constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
      const auto [error, count] =
          co_await asio::async_write(stream_, asio::buffer(kContinue), kAwait);
      if (error) co_return error;
    }
    close_after(read_timer_, shared_.options.body_timeout);
    const auto [error, count] = co_await http::async_read(stream_, buffer_, parser, kAwait);
    if (error) co_return error;
    read_timer_.cancel();
    co_return std::nullopt;
  }

  std::shared_ptr<ExchangeOnConnection> make_exchange(const std::string& id, std::string method,
                                                      std::string path, bool http11,
                                                      bool keep_alive) {
    busy_ = true;
    answer_complete_ = false;
    auto exchange = std::make_shared<ExchangeOnConnection>(
        this->shared_from_this(),
        AccessRecord{id, remote_, std::move(method), std::move(path), 0, 0, 0}, http11, keep_alive);
    exchange_ = exchange;
    keep_alive_ = keep_alive;
    return exchange;
  }

  void refuse(const ErrorCode& error) {
    if (error == http::error::end_of_stream || error == http::error::partial_message ||
        error.category() != make_error_code(http::error::bad_method).category()) {
      close();
      return;
    }
    const int status = error == http::error::body_limit ? 413
                       : error == http::error::header_limit || error == http::error::buffer_overflow
                           ? 431
                           : 400;
    const auto exchange = make_exchange(random_id("req-"), "", "", true, false);
    exchange->reply(shared_.callbacks.on_refused(status, error.message()));
  }

  void dispatch(http::request<http::string_body> message) {
    HttpRequest request;
    request.method = std::string(view(message.method_string()));
    const std::string_view target = view(message.target());
    request.path = percent_decoded(target.substr(0, target.find('?')));
    request.authorization = std::string(view(message[http::field::authorization]));
    request.id = std::string(view(message["x-request-id"]));
    if (!is_good_id(request.id)) request.id = random_id("req-");
    request.body = std::move(message.body());
    const auto exchange = make_exchange(request.id, request.method, request.path,
                                        message.version() >= 11, message.keep_alive());
    try {
      shared_.callbacks.on_request(std::move(request), exchange);
    } catch (const std::exception& error) {
      spdlog::error("[server] {}", error.what());
      exchange->reply(shared_.callbacks.on_refused(500, "the server has met an error of its own"));
    }
  }

  // `self` keeps the connection alive meanwhile.
  asio::awaitable<void> write_queue([[maybe_unused]] std::shared_ptr<StreamConnection> self) {
    while (!queue_.empty() && !closed_) {
      out_.clear();
      out_.swap(queue_);
      close_after(write_timer_, shared_.options.write_timeout);
      const auto [error, count] = co_await asio::async_write(stream_, asio::buffer(out_), kAwait);
      write_timer_.cancel();
      if (error) close();
    }
    writing_ = false;
    if (closed_) {
      queue_.clear();
      if (const auto exchange = exchange_.lock()) exchange->abandon();
    }
    if (busy_ && answer_complete_) co_await answered();
  }

  // The answer is with the client, or the client is gone.
  asio::awaitable<void> answered() {
    const auto exchange = exchange_.lock();
    const bool go_on = keep_alive_ && !shared_.draining;
    busy_ = false;
    if (!reading_) close();
    if (!go_on && !closed_) {
      closing_ = true;
      close_after(read_timer_, kLinger);
      if constexpr (std::is_same_v<Stream, TlsStream>) {
        co_await stream_.async_shutdown(kAwait);
      }
      ErrorCode ignored;
      socket().shutdown(tcp::socket::shutdown_send, ignored);
    } else if (at_rest_ && !closed_) {
      close_after(read_timer_, shared_.options.idle_timeout);
    }
    answered_.cancel();
    shared_.exchange_done();
  }

  Stream stream_;
  boost::beast::flat_buffer buffer_;
  asio::steady_timer read_timer_, write_timer_;
  asio::steady_timer answered_;  // cancelled when the answer is out
  std::string remote_;
  std::weak_ptr<ExchangeOnConnection> exchange_;
  std::string queue_, out_;
  bool busy_ = false;  // an exchange is open, or its last bytes are not yet sent
  bool answer_complete_ = false;
  bool keep_alive_ = true;
  bool closing_ = false;  // nothing more is answered
  bool closed_ = false;
  bool at_rest_ = false;  // the reader waits for the first byte of a request
  bool reading_ = true;
  bool writing_ = false;
};

}  // namespace

struct HttpServer::Impl {
  Impl(const HttpOptions& options, HttpCallbacks callbacks)
      : acceptor(shared.io), signals(shared.io) {
    shared.options = options;
    shared.callbacks = std::move(callbacks);
    if (options.certificate_file.empty() != options.key_file.empty()) {
      fail(Code::kInvalidArgument,
           "[serve] TLS needs both --ssl-certfile and --ssl-keyfile, one of them was given");
    }
    if (!options.certificate_file.empty()) load_certificate();
    listen();
    signals.add(SIGINT);
    signals.add(SIGTERM);
    wait_for_signal();
    asio::co_spawn(shared.io, accept(), asio::detached);
  }

  void load_certificate() {
    tls.emplace(asio::ssl::context::tls_server);
    tls->set_options(asio::ssl::context::no_tlsv1 | asio::ssl::context::no_tlsv1_1);
    ErrorCode error;
    tls->use_certificate_chain_file(shared.options.certificate_file, error);
    require(!error, "[serve] cannot use the certificate '{}': {}", shared.options.certificate_file,
            error.message());
    tls->use_private_key_file(shared.options.key_file, asio::ssl::context::pem, error);
    require(!error, "[serve] cannot use the key '{}': {}", shared.options.key_file,
            error.message());
  }

  void listen() {
    const HttpOptions& options = shared.options;
    ErrorCode error;
    tcp::resolver resolver(shared.io);
    const auto found =
        resolver.resolve(options.host, std::to_string(options.port), tcp::resolver::passive, error);
    if (error || found.empty()) {
      fail(Code::kUnavailable, "[serve] there is no address '{}': {}", options.host,
           error.message());
    }
    const tcp::endpoint endpoint = found.begin()->endpoint();
    acceptor.open(endpoint.protocol(), error);
    if (!error) acceptor.set_option(asio::socket_base::reuse_address(true), error);
    if (!error) acceptor.bind(endpoint, error);
    if (!error) acceptor.listen(1024, error);
    if (error) {
      fail(Code::kUnavailable, "[serve] cannot listen on {}:{}: {}; give another --port (0: any)",
           options.host, options.port, error.message());
    }
  }

  asio::awaitable<void> accept() {
    while (true) {
      auto [error, socket] = co_await acceptor.async_accept(kAwait);
      if (error == asio::error::operation_aborted) co_return;
      if (error) {  // too many open files, most likely: those that are open go on
        asio::steady_timer pause(shared.io, std::chrono::milliseconds(50));
        co_await pause.async_wait(kAwait);
        continue;
      }
      if (shared.connections >= shared.options.max_connections) {
        ErrorCode ignored;
        socket.close(ignored);
        continue;
      }
      if (tls) {
        start<TlsStream>(TlsStream(std::move(socket), *tls));
      } else {
        start<tcp::socket>(std::move(socket));
      }
    }
  }

  template <typename Stream>
  void start(Stream stream) {
    const auto connection = std::make_shared<StreamConnection<Stream>>(shared, std::move(stream));
    asio::co_spawn(
        shared.io, [connection]() -> asio::awaitable<void> { return connection->serve(); },
        asio::detached);
  }

  void wait_for_signal() {
    signals.async_wait([this](const ErrorCode& error, int) {
      if (error) return;
      if (shared.callbacks.on_signal) shared.callbacks.on_signal();
      wait_for_signal();
    });
  }

  Shared shared;
  std::optional<asio::ssl::context> tls;
  tcp::acceptor acceptor;
  asio::signal_set signals;
};

HttpServer::HttpServer(const HttpOptions& options, HttpCallbacks callbacks)
    : impl_(std::make_unique<Impl>(options, std::move(callbacks))) {}

HttpServer::~HttpServer() = default;

int HttpServer::port() const { return impl_->acceptor.local_endpoint().port(); }

std::string HttpServer::url() const {
  const std::string& host = impl_->shared.options.host;
  const bool six = host.find(':') != std::string::npos;
  return fmt::format("{}://{}{}{}:{}", impl_->tls ? "https" : "http", six ? "[" : "", host,
                     six ? "]" : "", port());
}

void HttpServer::run() { impl_->shared.io.run(); }

void HttpServer::post(std::function<void()> task) { asio::post(impl_->shared.io, std::move(task)); }

void HttpServer::drain() {
  impl_->shared.draining = true;
  impl_->shared.stop_if_drained();
}

void HttpServer::stop() { impl_->shared.io.stop(); }

int64_t HttpServer::connections() const { return impl_->shared.connections; }

}  // namespace ttpu::server
