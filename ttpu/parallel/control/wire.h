// What the processes of a job say to each other: frames over TCP. A frame is kind, timeout, length
// of the name and length of the body (little-endian, 4 + 4 + 4 + 8 bytes), then name and body.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace ttpu::parallel {

enum class FrameKind : uint32_t {
  kHello = 1,      // name: the job; body: JSON with process and host
  kWelcome = 2,    // the answer
  kSet = 3,        // name, body: a key and its value
  kGet = 4,        // name: a key; answered with kValue or kError
  kValue = 5,      // name, body
  kBarrier = 6,    // name; answered with kPassed or kError
  kPassed = 7,     // name
  kError = 8,      // name: of a key or barrier; body: what is wrong
  kBroadcast = 9,  // body
  kHeartbeat = 10,
  kFailed = 11,  // body: why the job has failed; from the coordinator, nothing more comes
  kBye = 12,     // nothing more comes
};

// Of name and body, from processes of the job.
inline constexpr uint64_t kLongestFrame = uint64_t{1} << 30;

struct Frame {
  FrameKind kind = FrameKind::kHeartbeat;
  std::string name = {};
  std::string body = {};
  uint32_t timeout_ms = 0;  // of kGet and kBarrier
};

std::string encode(const Frame& frame);

// Takes bytes as they come and gives whole frames.
class FrameReader {
 public:
  void push(std::string_view bytes) { bytes_.append(bytes); }
  // Throws kDataLoss when the bytes are no frames, or name and body of one are longer than what is
  // taken.
  std::optional<Frame> next();
  void set_longest(uint64_t bytes) { longest_ = bytes; }

 private:
  uint64_t longest_ = kLongestFrame;
  std::string bytes_;
  size_t begin_ = 0;
};

}  // namespace ttpu::parallel
