#include "ttpu/server/ids.h"

#include <algorithm>
#include <cstdint>
#include <random>

#include <fmt/format.h>

namespace ttpu::server {

std::string random_id(std::string_view prefix) {
  thread_local std::mt19937_64 engine{std::random_device{}() * 0x9e3779b97f4a7c15ULL ^
                                      std::random_device{}()};
  const uint64_t high = engine();
  const uint64_t low = engine();
  return fmt::format("{}{:016x}{:016x}", prefix, high, low);
}

bool is_good_id(std::string_view id) {
  const auto good = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
           c == '_' || c == '.' || c == ':';
  };
  return !id.empty() && id.size() <= 128 && std::all_of(id.begin(), id.end(), good);
}

}  // namespace ttpu::server
