#include "ttpu/server/load.h"

#include <algorithm>
#include <array>
#include <functional>
#include <optional>
#include <random>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/ssl.hpp>

#include "ttpu/base/error.h"

namespace ttpu::server {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::ip::tcp;
using Clock = std::chrono::steady_clock;
using ErrorCode = boost::system::error_code;

constexpr auto kAwait = asio::as_tuple(asio::use_awaitable);
constexpr size_t kMostErrorBytes = 500;  // of an error page that is repeated

struct Url {
  bool tls = false;
  std::string host, port, path;  // the path without `/v1` and without a slash at its end
};

Url parse_url(const std::string& text) {
  Url url;
  std::string_view rest = text;
  const auto take = [&rest](std::string_view prefix) {
    if (!rest.starts_with(prefix)) return false;
    rest.remove_prefix(prefix.size());
    return true;
  };
  url.tls = take("https://");
  require(url.tls || take("http://"), "[load] '{}' is no URL like http://127.0.0.1:8000", text);
  const size_t slash = std::min(rest.find('/'), rest.size());
  std::string_view place = rest.substr(0, slash);
  std::string_view path = rest.substr(slash);
  while (path.ends_with('/')) path.remove_suffix(1);
  if (path.ends_with("/v1")) path.remove_suffix(3);
  url.path = path;
  const size_t bracket = place.find(']');  // of an IPv6 address
  const size_t colon = place.find(':', bracket == std::string_view::npos ? 0 : bracket);
  url.port = colon < place.size() ? place.substr(colon + 1) : url.tls ? "443" : "80";
  place = place.substr(0, colon);
  if (place.starts_with('[') && place.ends_with(']')) place = place.substr(1, place.size() - 2);
  url.host = place;
  require(!url.host.empty() && !url.port.empty(), "[load] '{}' names no host", text);
  return url;
}

// Told of each part of a body as it comes; false: no more is wanted.
using OnBytes = std::function<bool(std::string_view bytes)>;

struct Outcome {
  int status = 0;
  std::string error;  // empty: the response came whole
};

// One request on a connection of its own.
class Client {
 public:
  Client(asio::io_context& io, const LoadOptions& options)
      : io_(io), options_(options), url_(parse_url(options.base_url)) {
    ErrorCode ignored;
    tls_.set_default_verify_paths(ignored);
    tls_.set_verify_mode(asio::ssl::verify_peer);
  }

  asio::awaitable<Outcome> send(http::verb verb, std::string path, std::string body,
                                OnBytes on_bytes) {
    http::request<http::string_body> request(verb, url_.path + path, 11);
    request.set(http::field::host, url_.host + ":" + url_.port);
    request.set(http::field::content_type, "application/json");
    request.set(http::field::connection, "close");
    if (!options_.api_key.empty()) {
      request.set(http::field::authorization, "Bearer " + options_.api_key);
    }
    request.body() = std::move(body);
    request.prepare_payload();
    Outcome outcome;
    if (url_.tls) {
      beast::ssl_stream<beast::tcp_stream> stream(io_, tls_);
      stream.set_verify_callback(asio::ssl::host_name_verification(url_.host));
      SSL_set_tlsext_host_name(stream.native_handle(), url_.host.c_str());
      outcome.error = co_await connect(beast::get_lowest_layer(stream));
      if (outcome.error.empty()) {
        const auto [error] =
            co_await stream.async_handshake(asio::ssl::stream_base::client, kAwait);
        if (error) outcome.error = "TLS: " + error.message();
      }
      if (outcome.error.empty()) {
        outcome = co_await exchange(stream, request, on_bytes);
      }
    } else {
      beast::tcp_stream stream(io_);
      outcome.error = co_await connect(stream);
      if (outcome.error.empty()) {
        outcome = co_await exchange(stream, request, on_bytes);
      }
    }
    co_return outcome;
  }

 private:
  asio::awaitable<std::string> connect(beast::tcp_stream& stream) {
    tcp::resolver resolver(io_);
    const auto [unknown, places] = co_await resolver.async_resolve(url_.host, url_.port, kAwait);
    if (unknown) co_return fmt::format("there is no host '{}': {}", url_.host, unknown.message());
    stream.expires_after(options_.timeout);  // all that follows
    const auto [error, place] = co_await stream.async_connect(places, kAwait);
    if (error) co_return fmt::format("cannot reach {}: {}", options_.base_url, error.message());
    ErrorCode ignored;
    stream.socket().set_option(tcp::no_delay(true), ignored);
    co_return "";
  }

  template <typename Stream>
  asio::awaitable<Outcome> exchange(Stream& stream, const http::request<http::string_body>& request,
                                    const OnBytes& on_bytes) {
    Outcome outcome;
    const auto [unsent, written] = co_await http::async_write(stream, request, kAwait);
    if (unsent) {
      outcome.error = "the request could not be sent: " + unsent.message();
      co_return outcome;
    }
    beast::flat_buffer buffer;
    http::response_parser<http::buffer_body> parser;
    parser.body_limit(boost::none);
    const auto [headless, head] = co_await http::async_read_header(stream, buffer, parser, kAwait);
    if (headless) {
      outcome.error = "no answer came: " + headless.message();
      co_return outcome;
    }
    outcome.status = static_cast<int>(parser.get().result_int());
    std::array<char, 16384> piece;
    while (!parser.is_done()) {
      auto& body = parser.get().body();
      body.data = piece.data();
      body.size = piece.size();
      const auto [error, read] = co_await http::async_read_some(stream, buffer, parser, kAwait);
      const size_t count = piece.size() - body.size;
      if (count > 0 && !on_bytes({piece.data(), count})) break;
      if (error && error != http::error::need_buffer) {
        outcome.error = "the answer broke off: " + error.message();
        break;
      }
    }
    co_return outcome;
  }

  asio::io_context& io_;
  const LoadOptions& options_;
  Url url_;
  asio::ssl::context tls_{asio::ssl::context::tls_client};
};

// Server-sent events, in pieces of any size.
class Events {
 public:
  explicit Events(std::function<void(std::string_view)> on_data) : on_data_(std::move(on_data)) {}

  void push(std::string_view bytes) {
    rest_ += bytes;
    size_t start = 0;
    for (size_t end = 0; (end = rest_.find('\n', start)) != std::string::npos; start = end + 1) {
      std::string_view line = std::string_view(rest_).substr(start, end - start);
      if (line.ends_with('\r')) line.remove_suffix(1);
      if (!line.starts_with("data:")) continue;
      line.remove_prefix(5);
      if (line.starts_with(' ')) line.remove_prefix(1);
      on_data_(line);
    }
    rest_.erase(0, start);
  }

 private:
  std::function<void(std::string_view)> on_data_;
  std::string rest_;
};

std::string error_message(const Json& body) {
  const auto error = body.find("error");
  if (error == body.end()) return "";
  const Json& message =
      error->is_object() && error->contains("message") ? (*error)["message"] : *error;
  return message.is_string() ? message.get<std::string>() : message.dump();
}

// Whether a chunk of either form brings anything that is read: text, thought or a call.
bool has_text(const Json& choice) {
  const auto says = [](const Json& object, const char* name) {
    const auto found = object.find(name);
    if (found == object.end()) return false;
    return (found->is_string() || found->is_array()) && !found->empty() && *found != "";
  };
  if (says(choice, "text")) return true;
  const auto delta = choice.find("delta");
  if (delta == choice.end() || !delta->is_object()) return false;
  return says(*delta, "content") || says(*delta, "reasoning_content") ||
         says(*delta, "reasoning") || says(*delta, "tool_calls");
}

// Reads one streamed answer.
class AnswerReader {
 public:
  bool push(std::string_view bytes) {
    now_ = Clock::now();
    if (head_.size() < kMostErrorBytes) head_ += bytes.substr(0, kMostErrorBytes);
    events_.push(bytes);
    return true;
  }

  LoadAnswer finish(const Outcome& outcome) {
    answer_.seconds = since_start(Clock::now());
    if (outcome.status != 0 && outcome.status != 200) {
      answer_.error = fmt::format("status {}: {}", outcome.status, said());
    } else if (!outcome.error.empty()) {
      answer_.error = outcome.error;
    } else if (answer_.error.empty() && !done_) {
      answer_.error = "the stream ended without [DONE]";
    }
    if (!counted_) answer_.output_tokens = static_cast<int64_t>(answer_.pieces.size());
    return std::move(answer_);
  }

 private:
  double since_start(Clock::time_point time) const {
    return std::chrono::duration<double>(time - start_).count();
  }

  std::string said() const {
    const Json body = Json::parse(head_, nullptr, false);
    const std::string message = body.is_object() ? error_message(body) : "";
    return message.empty() ? head_.substr(0, kMostErrorBytes) : message;
  }

  void read(std::string_view data) {
    if (data == "[DONE]") {
      done_ = true;
      return;
    }
    const Json chunk = Json::parse(data, nullptr, false);
    if (!chunk.is_object()) {
      answer_.error = fmt::format("an event is no JSON object: {}", data.substr(0, 100));
      return;
    }
    if (std::string message = error_message(chunk); !message.empty()) answer_.error = message;
    const auto choices = chunk.find("choices");
    if (choices != chunk.end() && choices->is_array() &&
        std::any_of(choices->begin(), choices->end(), has_text)) {
      answer_.pieces.push_back(since_start(now_));
    }
    const auto usage = chunk.find("usage");
    if (usage == chunk.end() || !usage->is_object()) return;
    const auto count = [&](const char* name, int64_t& place) {
      const auto found = usage->find(name);
      if (found == usage->end() || !found->is_number_integer()) return false;
      place = found->get<int64_t>();
      return true;
    };
    count("prompt_tokens", answer_.prompt_tokens);
    counted_ = count("completion_tokens", answer_.output_tokens) || counted_;
  }

  LoadAnswer answer_;
  Clock::time_point start_ = Clock::now();
  Clock::time_point now_;
  Events events_{[this](std::string_view data) { read(data); }};
  std::string head_;
  bool done_ = false;
  bool counted_ = false;
};

// Takes requests in turn; as many of these run as may be under way at once.
class Load {
 public:
  Load(const LoadOptions& options, const std::vector<LoadRequest>& requests)
      : options_(options), requests_(requests), client_(io_, options) {
    std::mt19937_64 random(options.seed);
    std::exponential_distribution<double> gap(1);
    double time = 0;
    for (size_t i = 0; i < requests.size(); ++i) {
      arrivals_.push_back(time);
      time += gap(random) / options.request_rate;
    }
    result_.answers.resize(requests.size());
  }

  LoadResult run() {
    const size_t most = options_.max_concurrency == 0
                            ? requests_.size()
                            : std::min(requests_.size(), size_t(options_.max_concurrency));
    std::exception_ptr failure;
    for (size_t i = 0; i < most; ++i) {
      asio::co_spawn(io_, work(), [&failure](const std::exception_ptr& thrown) {
        if (thrown) failure = thrown;
      });
    }
    start_ = Clock::now();
    io_.run();
    result_.seconds = std::chrono::duration<double>(Clock::now() - start_).count();
    if (failure) std::rethrow_exception(failure);
    return std::move(result_);
  }

 private:
  asio::awaitable<void> work() {
    while (next_ < requests_.size()) {
      const size_t number = next_++;
      asio::steady_timer arrival(io_,
                                 start_ + std::chrono::duration_cast<Clock::duration>(
                                              std::chrono::duration<double>(arrivals_[number])));
      co_await arrival.async_wait(kAwait);
      Json body = requests_[number];
      body["stream"] = true;
      body["stream_options"] = {{"include_usage", true}};
      std::string path = body.contains("messages") ? "/v1/chat/completions" : "/v1/completions";
      std::string text = body.dump(-1, ' ', false, Json::error_handler_t::replace);
      AnswerReader reader;
      OnBytes on_bytes = [&reader](std::string_view bytes) { return reader.push(bytes); };
      const Outcome outcome =
          co_await client_.send(http::verb::post, std::move(path), std::move(text), on_bytes);
      result_.answers[number] = reader.finish(outcome);
    }
  }

  const LoadOptions& options_;
  const std::vector<LoadRequest>& requests_;
  asio::io_context io_{1};
  Client client_;
  std::vector<double> arrivals_;  // seconds after the start
  size_t next_ = 0;
  Clock::time_point start_;
  LoadResult result_;
};

}  // namespace

std::string first_served_model(const LoadOptions& options) {
  asio::io_context io{1};
  Client client(io, options);
  std::string text;
  Outcome outcome;
  std::exception_ptr failure;
  asio::co_spawn(io,
                 client.send(http::verb::get, "/v1/models", "",
                             [&text](std::string_view bytes) {
                               text += bytes;
                               return text.size() < (size_t{1} << 20);
                             }),
                 [&](const std::exception_ptr& thrown, Outcome result) {
                   failure = thrown;
                   outcome = std::move(result);
                 });
  io.run();
  if (failure) std::rethrow_exception(failure);
  if (!outcome.error.empty()) fail(Code::kUnavailable, "[load] {}", outcome.error);
  const Json list = Json::parse(text, nullptr, false);
  try {
    return list.at("data").at(0).at("id").get<std::string>();
  } catch (const Json::exception&) {
    fail(Code::kUnavailable, "[load] {} lists no model at /v1/models (status {}); give --model",
         options.base_url, outcome.status);
  }
}

LoadResult run_load(const LoadOptions& options, const std::vector<LoadRequest>& requests) {
  require(options.request_rate > 0, "[load] the request rate is {}, expected more than 0",
          options.request_rate);
  require(options.max_concurrency >= 0,
          "[load] the concurrency is {}, expected 0 (no limit) or more", options.max_concurrency);
  return Load(options, requests).run();
}

}  // namespace ttpu::server
