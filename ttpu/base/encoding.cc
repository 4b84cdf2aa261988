#include "ttpu/base/encoding.h"

#include <array>
#include <string>

#include "ttpu/base/error.h"

namespace ttpu {
namespace {

struct EncodingInfo {
  std::string_view name;
  int elements;
  int bytes;
};

// Sizes from ggml-common.h of ggml.
constexpr std::array kInfo = {
    EncodingInfo{"dense", 0, 0},    EncodingInfo{"Q4_0", 32, 18},   EncodingInfo{"Q4_1", 32, 20},
    EncodingInfo{"Q5_0", 32, 22},   EncodingInfo{"Q5_1", 32, 24},   EncodingInfo{"Q8_0", 32, 34},
    EncodingInfo{"Q2_K", 256, 84},  EncodingInfo{"Q3_K", 256, 110}, EncodingInfo{"Q4_K", 256, 144},
    EncodingInfo{"Q5_K", 256, 176}, EncodingInfo{"Q6_K", 256, 210},
};

const EncodingInfo& info(Encoding encoding) { return kInfo.at(static_cast<size_t>(encoding)); }

}  // namespace

int64_t block_elements(Encoding encoding) { return info(encoding).elements; }
int64_t block_bytes(Encoding encoding) { return info(encoding).bytes; }
std::string_view encoding_name(Encoding encoding) { return info(encoding).name; }

Encoding parse_encoding(std::string_view name) {
  std::string known;
  for (size_t i = 0; i < kInfo.size(); ++i) {
    if (kInfo[i].name == name) return static_cast<Encoding>(i);
    known += fmt::format(" {}", kInfo[i].name);
  }
  fail(Code::kInvalidArgument, "[encoding] '{}' is not a weight encoding; known are:{}", name,
       known);
}

}  // namespace ttpu
