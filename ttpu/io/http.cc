#include "ttpu/io/http.h"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <chrono>
#include <memory>
#include <mutex>
#include <string_view>
#include <thread>

#include <curl/curl.h>
#include <fcntl.h>
#include <unistd.h>

#include "ttpu/base/atomic_file.h"
#include "ttpu/base/error.h"

namespace ttpu::io {
namespace {

constexpr long kConnectSeconds = 20;
constexpr long kStalledSeconds = 60;  // without a byte, after which a transfer counts as cut
constexpr long kMaxRedirects = 8;
constexpr int kMaxFruitlessTries = 4;  // in a row, without a new byte
constexpr size_t kMaxBody = size_t{64} << 20;

struct Free {
  void operator()(CURL* curl) const { curl_easy_cleanup(curl); }
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};

// One request. Not reused: a few dozen are made for a whole model.
class Request {
 public:
  Request(const std::string& url, const std::string& token) : url_(url) {
    static std::once_flag once;
    std::call_once(once, [] { curl_global_init(CURL_GLOBAL_DEFAULT); });
    curl_.reset(curl_easy_init());
    if (curl_ == nullptr) fail(Code::kInternal, "[http] libcurl cannot be started");
    set(CURLOPT_URL, url_.c_str());
    set(CURLOPT_NOSIGNAL, 1L);
    set(CURLOPT_USERAGENT, "ttpu");
    set(CURLOPT_CONNECTTIMEOUT, kConnectSeconds);
    set(CURLOPT_LOW_SPEED_LIMIT, 1L);
    set(CURLOPT_LOW_SPEED_TIME, kStalledSeconds);
    set(CURLOPT_MAXREDIRS, kMaxRedirects);
    set(CURLOPT_ERRORBUFFER, error_);
    set(CURLOPT_HEADERFUNCTION, &Request::on_header);
    set(CURLOPT_HEADERDATA, this);
    // Compressed bytes would neither have the announced length nor the hash.
    headers_.reset(curl_slist_append(nullptr, "Accept-Encoding: identity"));
    if (!token.empty()) {
      // curl itself drops this header when a redirect leads to another host.
      headers_.reset(
          curl_slist_append(headers_.release(), ("Authorization: Bearer " + token).c_str()));
    }
    set(CURLOPT_HTTPHEADER, headers_.get());
  }

  template <typename T>
  void set(CURLoption option, T value) {
    curl_easy_setopt(curl_.get(), option, value);
  }

  CURLcode perform() {
    const CURLcode result = curl_easy_perform(curl_.get());
    curl_easy_getinfo(curl_.get(), CURLINFO_RESPONSE_CODE, &response.status);
    return result;
  }

  [[noreturn]] void fail_unreachable(CURLcode result) const {
    fail(Code::kUnavailable,
         "[http] cannot reach '{}': {}; check the network and proxy, or work offline with a model "
         "that is in the cache or a local folder",
         url_, error_[0] != '\0' ? error_ : curl_easy_strerror(result));
  }

  long status() {
    curl_easy_getinfo(curl_.get(), CURLINFO_RESPONSE_CODE, &response.status);
    return response.status;
  }

  HttpResponse response;

 private:
  static size_t on_header(char* data, size_t size, size_t count, void* self) {
    auto& headers = static_cast<Request*>(self)->response.headers;
    const std::string_view line(data, size * count);
    if (line.starts_with("HTTP/")) headers.clear();  // of the next hop
    const size_t colon = line.find(':');
    if (colon != std::string_view::npos) {
      std::string name(line.substr(0, colon));
      std::transform(name.begin(), name.end(), name.begin(),
                     [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
      const size_t begin = line.find_first_not_of(" \t", colon + 1);
      const size_t end = line.find_last_not_of(" \t\r\n");
      headers[name] = begin == std::string_view::npos || end < begin
                          ? ""
                          : std::string(line.substr(begin, end - begin + 1));
    }
    return size * count;
  }

  std::string url_;
  std::unique_ptr<CURL, Free> curl_;
  std::unique_ptr<curl_slist, Free> headers_;
  char error_[CURL_ERROR_SIZE] = {};
};

size_t append_body(char* data, size_t size, size_t count, void* body) {
  auto& text = *static_cast<std::string*>(body);
  if (text.size() + size * count > kMaxBody) return 0;
  text.append(data, size * count);
  return size * count;
}

// Where a download goes.
class Sink {
 public:
  Sink(const std::filesystem::path& file, int64_t size, const Progress& progress)
      : file_(file), size_(size), progress_(progress) {
    fd_ = ::open(file.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd_ < 0) fail_errno("write", file);
    done = ::lseek(fd_, 0, SEEK_END);
    if (done > size_) restart();
  }
  ~Sink() { ::close(fd_); }
  Sink(const Sink&) = delete;
  Sink& operator=(const Sink&) = delete;

  void restart() {
    if (::ftruncate(fd_, 0) != 0) fail_errno("write", file_);
    ::lseek(fd_, 0, SEEK_SET);
    done = 0;
  }

  void sync() const {
    if (::fsync(fd_) != 0) fail_errno("write", file_);
  }

  void check_disk() const {
    if (disk_error == 0) return;
    errno = disk_error;
    fail_errno("write", file_);
  }

  static size_t write(char* data, size_t size, size_t count, void* self) {
    auto& sink = *static_cast<Sink*>(self);
    const long status = sink.request->status();
    if (status < 200 || status >= 300) return size * count;  // an error page
    // A server that ignores the range sends everything again.
    if (status == 200 && sink.expects_range && !sink.rewound) {
      sink.rewound = true;
      if (::ftruncate(sink.fd_, 0) != 0) return sink.stop();
      ::lseek(sink.fd_, 0, SEEK_SET);
      sink.done = 0;
    }
    size_t left = size * count;
    if (sink.done + static_cast<int64_t>(left) > sink.size_) return 0;
    while (left > 0) {
      const ssize_t written = ::write(sink.fd_, data, left);
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) return sink.stop();
      data += written;
      left -= static_cast<size_t>(written);
      sink.done += written;
    }
    if (sink.progress_) sink.progress_(sink.done, sink.size_);
    return size * count;
  }

  int64_t done = 0;
  int disk_error = 0;
  bool expects_range = false;
  bool rewound = false;
  Request* request = nullptr;

 private:
  size_t stop() {
    disk_error = errno;
    return 0;
  }
  const std::filesystem::path& file_;
  int64_t size_;
  const Progress& progress_;
  int fd_ = -1;
};

bool worth_another_try(long status) { return status == 429 || status >= 500; }

}  // namespace

std::string HttpResponse::header(const std::string& name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? "" : found->second;
}

HttpResponse http_get(const std::string& url, const std::string& token) {
  Request request(url, token);
  request.set(CURLOPT_FOLLOWLOCATION, 1L);
  request.set(CURLOPT_WRITEFUNCTION, &append_body);
  request.set(CURLOPT_WRITEDATA, &request.response.body);
  if (const CURLcode result = request.perform(); result != CURLE_OK) {
    request.fail_unreachable(result);
  }
  return std::move(request.response);
}

HttpResponse http_head(const std::string& url, const std::string& token) {
  Request request(url, token);
  request.set(CURLOPT_NOBODY, 1L);
  if (const CURLcode result = request.perform(); result != CURLE_OK) {
    request.fail_unreachable(result);
  }
  return std::move(request.response);
}

long http_download(const std::string& url, const std::string& token,
                   const std::filesystem::path& file, int64_t size, const Progress& progress) {
  Sink sink(file, size, progress);
  int fruitless = 0;
  while (sink.done < size) {
    const int64_t before = sink.done;
    Request request(url, token);
    sink.request = &request;
    sink.expects_range = before > 0;
    sink.rewound = false;
    request.set(CURLOPT_FOLLOWLOCATION, 1L);
    request.set(CURLOPT_WRITEFUNCTION, &Sink::write);
    request.set(CURLOPT_WRITEDATA, &sink);
    // Not CURLOPT_RESUME_FROM, which makes an error of a server that cannot resume.
    const std::string range = fmt::format("{}-", before);
    if (before > 0) request.set(CURLOPT_RANGE, range.c_str());
    const CURLcode result = request.perform();
    sink.request = nullptr;
    sink.check_disk();
    const long status = request.response.status;
    if (result == CURLE_OK && status == 416) {  // what is on disk is no beginning of this file
      sink.restart();
    } else if (result == CURLE_OK && status >= 300 && !worth_another_try(status)) {
      return status;
    }
    fruitless = sink.done > before ? 0 : fruitless + 1;
    if (sink.done >= size) break;
    if (fruitless >= kMaxFruitlessTries) {
      if (result != CURLE_OK) request.fail_unreachable(result);
      return status;
    }
    if (fruitless > 0) std::this_thread::sleep_for(std::chrono::milliseconds(200 << fruitless));
  }
  sink.sync();
  return 200;
}

}  // namespace ttpu::io
