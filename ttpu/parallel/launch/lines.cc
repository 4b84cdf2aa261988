#include "ttpu/parallel/launch/lines.h"

#include <array>
#include <cerrno>

#include <unistd.h>

namespace ttpu::parallel {
namespace {

// As much as the largest pipe holds: of a writer that has ended nothing is left behind.
constexpr size_t kMostAtOnce = 1 << 20;

}  // namespace

bool LineReader::read(const Descriptor& from, const OnLine& on_line) {
  std::array<char, 65536> block;
  for (size_t taken = 0; taken < kMostAtOnce;) {
    const ssize_t count = ::read(from.get(), block.data(), block.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) return true;
    if (count <= 0) {
      if (!bytes_.empty()) on_line(bytes_);
      bytes_.clear();
      return false;
    }
    taken += static_cast<size_t>(count);
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
  return true;
}

}  // namespace ttpu::parallel
