#include "ttpu/io/hub_download.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <memory>
#include <regex>
#include <string_view>
#include <vector>

#include <fcntl.h>
#include <fmt/ranges.h>
#include <openssl/evp.h>
#include <sys/file.h>
#include <unistd.h>

#include "ttpu/base/atomic_file.h"
#include "ttpu/base/error.h"
#include "ttpu/base/file.h"
#include "ttpu/base/json.h"
#include "ttpu/io/http.h"

namespace ttpu::io {
namespace {

namespace fs = std::filesystem;

constexpr int kMaxRelativeRedirects = 5;

std::string endpoint() {
  std::string url = env_or("HF_ENDPOINT", "https://huggingface.co");
  while (url.ends_with('/')) url.pop_back();
  return url;
}

[[noreturn]] void fail_status(const DownloadRequest& request, const HttpResponse& response,
                              const std::string& url) {
  const std::string id = request.repository;
  const std::string error = response.header("x-error-code");
  if (response.status == 403 || error == "GatedRepo") {
    fail(Code::kPermissionDenied,
         "[hub] access to '{}' is restricted: accept its conditions at {}/{} and set HF_TOKEN to a "
         "token of that account (HTTP {})",
         id, endpoint(), id, response.status);
  }
  if (response.status == 401) {
    fail(Code::kUnauthenticated,
         "[hub] '{}' does not exist or is private: check the spelling, and for a private model set "
         "HF_TOKEN to a valid token (HTTP 401)",
         id);
  }
  if (response.status == 404) {
    fail(Code::kNotFound,
         "[hub] there is no '{}'{} of revision '{}' at {}: check the spelling and the revision "
         "(HTTP 404)",
         id, request.file.empty() ? "" : " with '" + request.file + "'", request.revision,
         endpoint());
  }
  fail(Code::kUnavailable, "[hub] '{}' answered with HTTP {}; try again later", url,
       response.status);
}

// Holds a lock file (as huggingface_hub does) for as long as it lives.
class FileLock {
 public:
  explicit FileLock(const fs::path& path) {
    std::error_code error;
    fs::create_directories(path.parent_path(), error);
    fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd_ < 0) fail_errno("write", path);
    if (::flock(fd_, LOCK_EX | LOCK_NB) == 0) return;
    fmt::print(stderr, "waiting for another download of the same file\n");
    while (::flock(fd_, LOCK_EX) != 0) {
      if (errno != EINTR) fail_errno("lock", path);
    }
  }
  ~FileLock() { ::close(fd_); }
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  int fd_ = -1;
};

bool is_hex(std::string_view text, size_t length) {
  return text.size() == length &&
         text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

// Git names a blob by the SHA-1 of its header and text; large files go by their SHA-256.
std::string hash_file(const fs::path& file, bool git_blob) {
  const MappedFile mapped(file);
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(),
                                                                        &EVP_MD_CTX_free);
  bool good = context != nullptr &&
              EVP_DigestInit_ex(context.get(), git_blob ? EVP_sha1() : EVP_sha256(), nullptr) == 1;
  if (git_blob) {
    const std::string head = fmt::format("blob {}", mapped.size());
    good = good && EVP_DigestUpdate(context.get(), head.c_str(), head.size() + 1) == 1;
  }
  constexpr size_t kChunk = size_t{16} << 20;
  for (size_t at = 0; good && at < mapped.size(); at += kChunk) {
    const size_t size = std::min(kChunk, mapped.size() - at);
    good = EVP_DigestUpdate(context.get(), mapped.bytes().data() + at, size) == 1;
    mapped.release(at, size);
  }
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int length = 0;
  good = good && EVP_DigestFinal_ex(context.get(), digest, &length) == 1;
  if (!good) fail(Code::kInternal, "[hub] the hash of '{}' cannot be computed", file.string());
  std::string text;
  for (unsigned int i = 0; i < length; ++i) text += fmt::format("{:02x}", digest[i]);
  return text;
}

// Where a file of the repository lies and what it must be.
struct Remote {
  std::string url;
  std::string etag;
  int64_t size = 0;
};

std::string plain_etag(std::string etag) {
  if (etag.starts_with("W/")) etag.erase(0, 2);
  std::erase(etag, '"');
  return etag;
}

class Download {
 public:
  explicit Download(const DownloadRequest& request)
      : request_(request),
        token_(env_or("HF_TOKEN")),
        repository_(request.cache / request.folder) {}

  fs::path run() {
    const std::vector<std::string> files = choose_files(list_files());
    for (const std::string& file : files) fetch(file);
    if (commit_ != request_.revision) {
      write_file(repository_ / "refs" / request_.revision, commit_);
    }
    return snapshot();
  }

 private:
  fs::path snapshot() const { return repository_ / "snapshots" / commit_; }

  std::vector<std::string> list_files() {
    std::string revision = request_.revision;  // "refs/pr/1" is one part of the path
    for (size_t at = 0; (at = revision.find('/', at)) != std::string::npos; at += 3) {
      revision.replace(at, 1, "%2F");
    }
    const std::string url =
        fmt::format("{}/api/models/{}/revision/{}", endpoint(), request_.repository, revision);
    const HttpResponse response = http_get(url, token_);
    if (response.status != 200) fail_status(request_, response, url);
    const Json json = parse_json(response.body, "the answer of " + url);
    const JsonView view(json, "the answer of " + url);
    commit_ = view.get<std::string>("sha");
    require(is_hex(commit_, 40), "[hub] {} names the commit '{}'; this is no hub", url, commit_);
    std::vector<std::string> files;
    const auto siblings = json.find("siblings");
    if (siblings == json.end() || !siblings->is_array()) return files;
    for (const Json& item : *siblings) {
      files.push_back(JsonView(item, "a file of " + url).get<std::string>("rfilename"));
    }
    return files;
  }

  std::vector<std::string> choose_files(const std::vector<std::string>& all) const {
    if (!request_.file.empty()) return choose_gguf(all);
    static const std::regex kWeights(R"(model(-\d+-of-\d+)?\.safetensors)");
    static const std::regex kSmall(
        R"([\w.-]+\.(json|jinja)|tokenizer\.model|vocab\.txt|merges\.txt)");
    const bool has_weights = std::any_of(all.begin(), all.end(), [](const std::string& file) {
      return std::regex_match(file, kWeights);
    });
    if (!has_weights) fail_without_weights(all);
    std::vector<std::string> files;
    for (const std::string& file : all) {
      if (std::regex_match(file, kSmall) || std::regex_match(file, kWeights)) files.push_back(file);
    }
    // The small files first: a mistake shows before gigabytes have come.
    std::stable_partition(files.begin(), files.end(),
                          [](const std::string& file) { return !file.ends_with(".safetensors"); });
    return files;
  }

  // The file, or all parts of a split one.
  std::vector<std::string> choose_gguf(const std::vector<std::string>& all) const {
    static const std::regex kSplit(R"((.*-)\d{5}(-of-\d{5}\.gguf))");
    std::smatch match;
    std::vector<std::string> files;
    const bool split = std::regex_match(request_.file, match, kSplit);
    for (const std::string& file : all) {
      std::smatch other;
      if (file == request_.file || (split && std::regex_match(file, other, kSplit) &&
                                    other[1] == match[1] && other[2] == match[2])) {
        files.push_back(file);
      }
    }
    if (std::find(files.begin(), files.end(), request_.file) == files.end()) {
      fail(Code::kNotFound, "[hub] '{}' has no file '{}'; its GGUF files are: {}",
           request_.repository, request_.file, fmt::join(gguf_files(all), ", "));
    }
    return files;
  }

  static std::vector<std::string> gguf_files(const std::vector<std::string>& all) {
    std::vector<std::string> files;
    std::copy_if(all.begin(), all.end(), std::back_inserter(files),
                 [](const std::string& file) { return file.ends_with(".gguf"); });
    return files;
  }

  [[noreturn]] void fail_without_weights(const std::vector<std::string>& all) const {
    const std::vector<std::string> gguf = gguf_files(all);
    if (!gguf.empty()) {
      fail(Code::kNotFound,
           "[hub] '{}' has no safetensors but GGUF files; name one, for example '{}:{}'. There "
           "are: {}",
           request_.repository, request_.repository, gguf.front(), fmt::join(gguf, ", "));
    }
    const bool pickles = std::any_of(all.begin(), all.end(), [](const std::string& file) {
      return file.ends_with(".bin") || file.ends_with(".pt") || file.ends_with(".pth") ||
             file.ends_with(".ckpt");
    });
    if (pickles) {
      fail(Code::kUnimplemented,
           "[hub] '{}' has its weights only as Python pickles, which run code when they are read "
           "and are refused; look for a revision or a copy of the model with safetensors",
           request_.repository);
    }
    fail(Code::kNotFound, "[hub] '{}' (revision '{}') holds no weights: no safetensors, no GGUF",
         request_.repository, request_.revision);
  }

  Remote find_remote(const std::string& file) const {
    std::string url =
        fmt::format("{}/{}/resolve/{}/{}", endpoint(), request_.repository, commit_, file);
    for (int i = 0; i < kMaxRelativeRedirects; ++i) {
      const HttpResponse response = http_head(url, token_);
      const std::string location = response.header("location");
      // A renamed repository redirects on the same host; large files redirect to another.
      if (response.status >= 300 && response.status < 400 && location.starts_with('/') &&
          response.header("x-linked-etag").empty()) {
        url = endpoint() + location;
        continue;
      }
      if (response.status >= 400) fail_status(request_, response, url);
      Remote remote;
      remote.url = url;
      remote.etag =
          plain_etag(response.header("x-linked-etag").empty() ? response.header("etag")
                                                              : response.header("x-linked-etag"));
      const std::string size = response.header("x-linked-size").empty()
                                   ? response.header("content-length")
                                   : response.header("x-linked-size");
      require(is_hex(remote.etag, 40) || is_hex(remote.etag, 64),
              "[hub] '{}' comes without a hash (ETag '{}'); is HF_ENDPOINT a hub?", url,
              remote.etag);
      require(!size.empty() && size.size() < 19 &&
                  size.find_first_not_of("0123456789") == std::string::npos,
              "[hub] '{}' comes without a size; is HF_ENDPOINT a hub?", url);
      remote.size = std::stoll(size);
      return remote;
    }
    fail(Code::kUnavailable, "[hub] '{}' redirects in circles", url);
  }

  void fetch(const std::string& file) {
    const fs::path link = snapshot() / file;
    std::error_code error;
    if (fs::exists(link, error)) return;
    const Remote remote = find_remote(file);
    const FileLock lock(request_.cache / ".locks" / request_.folder / (remote.etag + ".lock"));
    const fs::path blob = repository_ / "blobs" / remote.etag;
    if (!fs::exists(blob, error)) fetch_blob(file, remote, blob);
    fs::create_directories(link.parent_path(), error);
    const fs::path target = fs::relative(blob, link.parent_path());
    fs::path beside = link;
    beside += fmt::format(".{}.tmp", ::getpid());
    ::unlink(beside.c_str());
    if (::symlink(target.c_str(), beside.c_str()) != 0) fail_errno("link", beside);
    if (::rename(beside.c_str(), link.c_str()) != 0) fail_errno("rename to", link);
  }

  void fetch_blob(const std::string& file, const Remote& remote, const fs::path& blob) const {
    std::error_code error;
    fs::create_directories(blob.parent_path(), error);
    fs::path incomplete = blob;
    incomplete += ".incomplete";
    const auto have = fs::exists(incomplete, error)
                          ? static_cast<int64_t>(fs::file_size(incomplete, error))
                          : int64_t{0};
    check_space(file, blob.parent_path(), remote.size - have);
    HttpResponse response;
    response.status = http_download(remote.url, token_, incomplete, remote.size, progress_of(file));
    if (response.status != 200) fail_status(request_, response, remote.url);
    if (remote.size == 0) AtomicFile(incomplete).commit();
    const std::string hash = hash_file(incomplete, remote.etag.size() == 40);
    if (hash != remote.etag) {
      fs::remove(incomplete, error);
      fail(Code::kDataLoss,
           "[hub] '{}' of '{}' arrived damaged: its hash is {}, expected {}; what came was "
           "deleted, try again",
           file, request_.repository, hash, remote.etag);
    }
    fs::rename(incomplete, blob);
  }

  void check_space(const std::string& file, const fs::path& folder, int64_t needed) const {
    std::error_code error;
    const fs::space_info space = fs::space(folder, error);
    if (error || needed <= 0 || space.available >= static_cast<uint64_t>(needed)) return;
    fail(Code::kResourceExhausted,
         "[hub] '{}' needs {} MB more and the disk of '{}' has {} MB free; free some, or set "
         "HF_HOME to a folder on another disk",
         file, needed / 1'000'000 + 1, folder.string(), space.available / 1'000'000);
  }

  // One line per file; on a terminal it counts up.
  static Progress progress_of(const std::string& file) {
    const bool terminal = ::isatty(STDERR_FILENO) == 1;
    auto last = std::make_shared<std::chrono::steady_clock::time_point>();
    return [=](int64_t done, int64_t total) {
      const auto now = std::chrono::steady_clock::now();
      const bool finished = done == total;
      if (!finished && (!terminal || now - *last < std::chrono::milliseconds(200))) return;
      *last = now;
      fmt::print(stderr, "{}fetching {}: {:.1f} of {:.1f} MB{}", terminal ? "\r" : "", file,
                 static_cast<double>(done) / 1e6, static_cast<double>(total) / 1e6,
                 finished ? "\n" : "");
      std::fflush(stderr);
    };
  }

  const DownloadRequest& request_;
  std::string token_;
  fs::path repository_;
  std::string commit_;
};

}  // namespace

fs::path download_model(const DownloadRequest& request) { return Download(request).run(); }

}  // namespace ttpu::io
