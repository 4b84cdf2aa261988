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
  // Reads what there is, at most about a megabyte, so that a fast writer does not keep the caller
  // from all else. False at the end, after which what had no newline has been given, too.
  bool read(const Descriptor& from, const OnLine& on_line);

 private:
  size_t longest_;
  std::string bytes_;
};

}  // namespace ttpu::parallel
