#include "ttpu/base/file.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ttpu/base/atomic_file.h"
#include "ttpu/base/error.h"

namespace ttpu {
namespace {

class Descriptor {
 public:
  Descriptor(const std::filesystem::path& path, int flags, const char* what)
      : fd_(::open(path.c_str(), flags | O_CLOEXEC, 0644)) {
    if (fd_ < 0) fail_errno(what, path);
  }
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

size_t regular_file_size(int fd, const std::filesystem::path& path) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) fail_errno("read", path);
  if (!S_ISREG(status.st_mode)) {
    fail(Code::kInvalidArgument, "[file] '{}' is not a regular file", path.string());
  }
  return static_cast<size_t>(status.st_size);
}

}  // namespace

std::string read_file(const std::filesystem::path& path) {
  const Descriptor file(path, O_RDONLY, "read");
  std::string contents(regular_file_size(file.get(), path), '\0');
  size_t done = 0;
  while (done < contents.size()) {
    const ssize_t count = ::read(file.get(), contents.data() + done, contents.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_errno("read", path);
    if (count == 0) break;
    done += static_cast<size_t>(count);
  }
  contents.resize(done);
  return contents;
}

void write_file(const std::filesystem::path& path, std::string_view contents) {
  AtomicFile file(path);
  file.write(std::as_bytes(std::span(contents)));
  file.commit();
}

MappedFile::MappedFile(const std::filesystem::path& path) : path_(path) {
  const Descriptor file(path, O_RDONLY, "map");
  size_ = regular_file_size(file.get(), path);
  if (size_ == 0) return;  // mmap refuses a length of zero
  void* data = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (data == MAP_FAILED) {
    size_ = 0;
    fail_errno("map", path);
  }
  data_ = static_cast<const std::byte*>(data);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

void MappedFile::release(size_t offset, size_t length) const {
  if (data_ == nullptr || offset >= size_) return;
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t begin = (offset + page - 1) / page * page;
  const size_t end = std::min(offset + length, size_) / page * page;
  if (begin < end) {
    ::madvise(const_cast<std::byte*>(data_) + begin, end - begin, MADV_DONTNEED);
  }
}

std::filesystem::path cache_dir() {
  if (const std::string dir = env_or("TTPU_CACHE"); !dir.empty()) return dir;
  if (const std::string dir = env_or("XDG_CACHE_HOME"); !dir.empty()) {
    return std::filesystem::path(dir) / "ttpu";
  }
  return std::filesystem::path(env_or("HOME", "/tmp")) / ".cache" / "ttpu";
}

std::string env_or(const char* name, std::string_view fallback) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? std::string(value) : std::string(fallback);
}

bool env_flag(const char* name) {
  const std::string value = env_or(name, "0");
  return value != "0" && value != "false" && value != "no";
}

}  // namespace ttpu
