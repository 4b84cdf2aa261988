// Lines out of bytes as they come.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "ttpu/parallel/control/socket.h"

namespace ttpu::parallel {

using OnLine = std::function<void(std::string_view line)>;

class LineReader {
 public:
  // A line that grows longer is given in pieces.
  explicit LineReader(size_t longest) : longest_(longest) {}
  // Reads all there is. False at the end, after which what had no newline has been given, too.
  bool read(const Descriptor& from, const OnLine& on_line);

 private:
  size_t longest_;
  std::string bytes_;
};

// Writes all of it, waiting where it must; false when nobody reads any more.
bool write_all(int fd, std::string_view bytes);

}  // namespace ttpu::parallel
