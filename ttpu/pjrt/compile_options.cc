#include "ttpu/pjrt/compile_options.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstdint>

#include "ttpu/base/error.h"
#include "ttpu/base/log.h"

namespace ttpu::pjrt {
namespace {

// The part of the protobuf wire format that the options need.
// https://protobuf.dev/programming-guides/encoding
class Encoder {
 public:
  void integer(int field, int64_t value) {
    tag(field, 0);
    varint(static_cast<uint64_t>(value));
  }
  void real(int field, double value) {
    tag(field, 1);
    const auto bits = std::bit_cast<uint64_t>(value);
    for (int shift = 0; shift < 64; shift += 8) bytes_ += static_cast<char>(bits >> shift);
  }
  void bytes(int field, std::string_view value) {
    tag(field, 2);
    varint(value.size());
    bytes_ += value;
  }
  const std::string& result() const { return bytes_; }

 private:
  void tag(int field, unsigned wire_type) {
    varint((static_cast<uint64_t>(field) << 3) | wire_type);
  }
  void varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_ += static_cast<char>(value | 0x80);
    bytes_ += static_cast<char>(value);
  }
  std::string bytes_;
};

// xla.DeviceAssignmentProto: one ComputationDevice a partition, which lists its replicas' devices.
std::string encode_assignment(const CompileOptions& options) {
  Encoder assignment;
  assignment.integer(1, options.num_replicas);
  assignment.integer(2, options.num_partitions);
  for (int partition = 0; partition < options.num_partitions; ++partition) {
    Encoder devices;
    for (int replica = 0; replica < options.num_replicas; ++replica) {
      const int at = replica * options.num_partitions + partition;
      devices.integer(1, options.device_assignment[static_cast<size_t>(at)]);
    }
    assignment.bytes(3, devices.result());
  }
  return assignment.result();
}

// xla.OptionOverrideProto
std::string encode_override(const std::string& name, const OptionValue& value) {
  Encoder option;
  if (const auto* text = std::get_if<std::string>(&value)) {
    option.bytes(1, *text);
  } else if (const auto* boolean = std::get_if<bool>(&value)) {
    option.integer(2, *boolean ? 1 : 0);
  } else if (const auto* integer = std::get_if<int64_t>(&value)) {
    option.integer(3, *integer);
  } else if (const auto* number = std::get_if<float>(&value)) {
    option.real(4, *number);
  } else {
    fail(Code::kInvalidArgument, "[compile] the XLA flag '{}' cannot be a list; give its text",
         name);
  }
  return option.result();
}

OptionValue parse_flag_value(std::string_view text) {
  if (text == "true") return true;
  if (text == "false") return false;
  int64_t integer = 0;
  const char* end = text.data() + text.size();
  if (const auto parsed = std::from_chars(text.data(), end, integer);
      parsed.ec == std::errc() && parsed.ptr == end) {
    return integer;
  }
  float number = 0;
  if (const auto parsed = std::from_chars(text.data(), end, number);
      parsed.ec == std::errc() && parsed.ptr == end) {
    return number;
  }
  return std::string(text);
}

}  // namespace

void add_xla_flags(CompileOptions& options, std::string_view flags) {
  while (true) {
    const size_t start = flags.find_first_not_of(" \t\n");
    if (start == std::string_view::npos) return;
    flags.remove_prefix(start);
    const std::string_view flag = flags.substr(0, flags.find_first_of(" \t\n"));
    flags.remove_prefix(flag.size());
    require(flag.starts_with("--xla") || flag.starts_with("--tpu"),
            "[compile] '{}' is not an XLA flag; expected --xla_name=value", flag);
    const size_t equals = flag.find('=');
    const std::string name(flag.substr(2, equals == std::string_view::npos ? equals : equals - 2));
    options.overrides[name] = equals == std::string_view::npos
                                  ? OptionValue(true)
                                  : parse_flag_value(flag.substr(equals + 1));
  }
}

std::string encode_compile_options(const CompileOptions& options) {
  require(options.num_replicas >= 1 && options.num_partitions >= 1,
          "[compile] {} replicas of {} partitions were asked for; each must be at least 1",
          options.num_replicas, options.num_partitions);
  const auto num_devices =
      static_cast<size_t>(options.num_replicas) * static_cast<size_t>(options.num_partitions);
  require(
      options.device_assignment.empty() || options.device_assignment.size() == num_devices,
      "[compile] the device assignment has {} devices, but {} replicas of {} partitions need {}",
      options.device_assignment.size(), options.num_replicas, options.num_partitions, num_devices);

  Encoder build;         // xla.ExecutableBuildOptionsProto
  build.integer(1, -1);  // device_ordinal: not set
  build.integer(4, options.num_replicas);
  build.integer(5, options.num_partitions);
  build.integer(6, options.use_spmd ? 1 : 0);
  if (!options.device_assignment.empty()) build.bytes(9, encode_assignment(options));
  build.integer(19, options.use_shardy ? 1 : 0);

  Encoder result;  // xla.CompileOptionsProto
  result.bytes(3, build.result());
  Options overrides = options.overrides;
  overrides.insert(options.hints.begin(), options.hints.end());
  for (const auto& [name, value] : overrides) {
    Encoder entry;  // of map<string, OptionOverrideProto>
    entry.bytes(1, name);
    entry.bytes(2, encode_override(name, value));
    result.bytes(7, entry.result());
  }
  return result.result();
}

void compile_with_hints(CompileOptions options,
                        const std::function<void(const std::string& encoded)>& compile) {
  while (true) {
    try {
      return compile(encode_compile_options(options));
    } catch (const Error& error) {
      const std::string_view said = error.what();
      const auto unknown = std::ranges::find_if(options.hints, [&](const auto& hint) {
        return said.find("option: '" + hint.first + "'") != std::string_view::npos;
      });
      if (unknown == options.hints.end()) throw;
      spdlog::info("[compile] the plugin knows no {}; it compiles without", unknown->first);
      options.hints.erase(unknown);
    }
  }
}

}  // namespace ttpu::pjrt
