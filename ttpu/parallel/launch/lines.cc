#include "ttpu/parallel/launch/lines.h"

#include <array>
#include <cerrno>

#include <poll.h>
#include <unistd.h>

namespace ttpu::parallel {
bool LineReader::read(const Descriptor& from, const OnLine& on_line) {
  std::array<char, 65536> block;
  while (true) {
    const ssize_t count = ::read(from.get(), block.data(), block.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) return true;
    if (count <= 0) break;
    bytes_.append(block.data(), static_cast<size_t>(count));
    size_t begin = 0;
    for (size_t end = 0; (end = bytes_.find('\n', begin)) != std::string::npos; begin = end + 1) {
      on_line(std::string_view(bytes_).substr(begin, end - begin));
    }
    bytes_.erase(0, begin);
    if (bytes_.size() > longest_) {
      on_line(bytes_);
      bytes_.clear();
    }
  }
  if (!bytes_.empty()) on_line(bytes_);
  bytes_.clear();
  return false;
}

bool write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(fd, bytes.data(), bytes.size());
    if (count > 0) {
      bytes.remove_prefix(static_cast<size_t>(count));
    } else if (errno == EAGAIN) {
      pollfd ready{fd, POLLOUT, 0};
      ::poll(&ready, 1, -1);
    } else if (errno != EINTR) {
      return false;
    }
  }
  return true;
}

}  // namespace ttpu::parallel
