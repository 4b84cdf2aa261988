#include "ttpu/parallel/control/wire.h"

#include <cstring>

#include "ttpu/base/error.h"

namespace ttpu::parallel {
namespace {

constexpr size_t kHeader = 20;
constexpr uint32_t kLongestName = 1 << 12;

template <typename T>
void put(std::string& bytes, T value) {
  for (size_t i = 0; i < sizeof(T); ++i) bytes.push_back(static_cast<char>(value >> (8 * i)));
}

template <typename T>
T take(const char* bytes) {
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) {
    value |= static_cast<T>(static_cast<T>(static_cast<unsigned char>(bytes[i])) << (8 * i));
  }
  return value;
}

}  // namespace

std::string encode(const Frame& frame) {
  require(
      frame.name.size() <= kLongestName && frame.name.size() + frame.body.size() <= kLongestFrame,
      "[control] a name of {} bytes with {} bytes is too long", frame.name.size(),
      frame.body.size());
  std::string bytes;
  bytes.reserve(kHeader + frame.name.size() + frame.body.size());
  put(bytes, static_cast<uint32_t>(frame.kind));
  put(bytes, frame.timeout_ms);
  put(bytes, static_cast<uint32_t>(frame.name.size()));
  put(bytes, static_cast<uint64_t>(frame.body.size()));
  return bytes.append(frame.name).append(frame.body);
}

std::optional<Frame> FrameReader::next() {
  const size_t left = bytes_.size() - begin_;
  if (left < kHeader) return std::nullopt;
  const char* header = bytes_.data() + begin_;
  const auto kind = take<uint32_t>(header);
  const auto name = take<uint32_t>(header + 8);
  const auto body = take<uint64_t>(header + 12);
  if (kind < static_cast<uint32_t>(FrameKind::kHello) ||
      kind > static_cast<uint32_t>(FrameKind::kBye) || name > kLongestName || body > longest_ ||
      name + body > longest_) {
    fail(Code::kDataLoss, "[control] what came is not of a process of this job");
  }
  if (left < kHeader + name + body) return std::nullopt;
  Frame frame;
  frame.kind = static_cast<FrameKind>(kind);
  frame.timeout_ms = take<uint32_t>(header + 4);
  frame.name.assign(header + kHeader, name);
  frame.body.assign(header + kHeader + name, body);
  begin_ += kHeader + name + body;
  if (begin_ == bytes_.size() || begin_ > (1U << 20)) {
    bytes_.erase(0, begin_);
    begin_ = 0;
  }
  return frame;
}

}  // namespace ttpu::parallel
