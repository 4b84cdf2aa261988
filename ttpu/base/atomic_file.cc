#include "ttpu/base/atomic_file.h"

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <unistd.h>

#include "ttpu/base/error.h"

namespace ttpu {

void fail_errno(const char* what, const std::filesystem::path& path) {
  const int error = errno;
  Code code = Code::kUnknown;
  const char* hint = "";
  if (error == ENOSPC || error == EDQUOT || error == EFBIG) {
    code = Code::kResourceExhausted;
    hint =
        "; free some space, raise the limit (ulimit -f) or choose another folder, then try again";
  } else if (error == EACCES || error == EPERM || error == EROFS) {
    code = Code::kPermissionDenied;
    hint = "; check the permissions";
  } else if (error == ENOENT || error == ENOTDIR) {
    code = Code::kNotFound;
    hint = "; check the path";
  }
  fail(code, "[file] cannot {} '{}': {}{}", what, path.string(), std::strerror(error), hint);
}

AtomicFile::AtomicFile(std::filesystem::path path) : path_(std::move(path)), beside_(path_) {
  if (path_.has_parent_path()) {
    std::error_code error;
    std::filesystem::create_directories(path_.parent_path(), error);
    if (error) {
      errno = error.value();
      fail_errno("create the folder", path_.parent_path());
    }
  }
  beside_ += fmt::format(".{}.tmp", ::getpid());
  fd_ = ::open(beside_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd_ < 0) fail_errno("write", beside_);
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(beside_.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(fd_, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_errno("write", beside_);
    bytes = bytes.subspan(static_cast<size_t>(count));
  }
}

void AtomicFile::commit() {
  if (::fsync(fd_) != 0) fail_errno("write", beside_);
  if (::rename(beside_.c_str(), path_.c_str()) != 0) fail_errno("rename to", path_);
  ::close(fd_);
  fd_ = -1;
}

}  // namespace ttpu
