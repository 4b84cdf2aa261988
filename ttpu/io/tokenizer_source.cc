#include "ttpu/io/tokenizer_source.h"

#include "ttpu/base/error.h"

namespace ttpu::io {

void Texts::reserve(size_t count, size_t bytes) {
  ends.reserve(count);
  text.reserve(bytes);
}

void Texts::add(std::string_view one) {
  require(one.size() <= UINT32_MAX - text.size(),
          "[tokenizer] its tokens take more than 4 GB; the file is damaged");
  text += one;
  ends.push_back(static_cast<uint32_t>(text.size()));
}

std::string_view Texts::operator[](size_t index) const {
  const uint32_t begin = index == 0 ? 0 : ends[index - 1];
  return std::string_view(text).substr(begin, ends[index] - begin);
}

}  // namespace ttpu::io
