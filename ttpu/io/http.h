// The few HTTP requests that the hub needs, through libcurl.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>

namespace ttpu::io {

struct HttpResponse {
  long status = 0;
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;
  // The header, or "".
  std::string header(const std::string& name) const;
};

// Bytes on disk so far, and in all.
using Progress = std::function<void(int64_t done, int64_t total)>;

// Throws kUnavailable when the server cannot be reached. `token` may be empty; it is never sent to
// another host that the server redirects to.
HttpResponse http_get(const std::string& url, const std::string& token);
// The headers alone. Redirects are not followed.
HttpResponse http_head(const std::string& url, const std::string& token);

// Makes `file` hold the first `size` bytes at `url`: goes on behind what it holds already, and
// again after a cut connection. Throws kUnavailable when the connection keeps failing (the file
// keeps what has come), kResourceExhausted when the disk is full, and returns any HTTP status that
// is not a success (2xx) without touching the file. A success returns 200.
long http_download(const std::string& url, const std::string& token,
                   const std::filesystem::path& file, int64_t size, const Progress& progress);

}  // namespace ttpu::io
