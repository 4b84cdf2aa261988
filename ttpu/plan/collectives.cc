// Reads the few fields of an HloModuleProto that say which collectives the compiler left. Field
// numbers: xla/service/hlo.proto and xla/xla_data.proto of OpenXLA.
#include <map>

#include "ttpu/base/error.h"
#include "ttpu/plan/cost.h"

namespace ttpu::plan {
namespace {

// Walks the fields of one protobuf message.
class Fields {
 public:
  explicit Fields(std::string_view bytes) : rest_(bytes) {}

  bool next() {
    if (rest_.empty()) return false;
    const uint64_t key = varint();
    number = static_cast<int>(key >> 3);
    value = 0;
    bytes = {};
    switch (key & 7) {
      case 0:
        value = varint();
        return true;
      case 1:
        bytes = take(8);
        return true;
      case 2:
        bytes = take(varint());
        return true;
      case 5:
        bytes = take(4);
        return true;
      default:
        broken();
    }
  }
  uint64_t varint() {
    uint64_t result = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      result |= static_cast<uint64_t>(byte & 127U) << shift;
      if (byte < 128) return result;
    }
    broken();
  }
  bool done() const { return rest_.empty(); }

  int number = 0;
  uint64_t value = 0;
  std::string_view bytes;

 private:
  [[noreturn]] static void broken() {
    fail(Code::kDataLoss,
         "[cost] the compiled program that the plugin gave is not a valid HLO "
         "message; update the plugin with `ttpu plugin install`");
  }
  std::string_view take(uint64_t count) {
    if (count > rest_.size()) broken();
    const std::string_view taken = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return taken;
  }
  std::string_view rest_;
};

// Of a ShapeProto's element types; those below a byte are counted as one.
double element_bytes(uint64_t type) {
  switch (type) {
    case 3:   // S16
    case 7:   // U16
    case 10:  // F16
    case 16:  // BF16
      return 2;
    case 4:   // S32
    case 8:   // U32
    case 11:  // F32
      return 4;
    case 5:   // S64
    case 9:   // U64
    case 12:  // F64
      return 8;
    default:
      return 1;
  }
}

// `only_last`: of a tuple (operand, result) that an asynchronous start gives, the result.
double shape_bytes(std::string_view message, bool only_last) {
  constexpr uint64_t kTuple = 13;
  uint64_t type = 0;
  double elements = 1;
  double parts = 0;
  for (Fields fields(message); fields.next();) {
    if (fields.number == 2) type = fields.value;
    if (fields.number == 3 && fields.bytes.empty()) elements *= static_cast<double>(fields.value);
    if (fields.number == 3 && !fields.bytes.empty()) {
      for (Fields dims(fields.bytes); !dims.done();) elements *= static_cast<double>(dims.varint());
    }
    if (fields.number == 4) {
      const double part = shape_bytes(fields.bytes, false);
      parts = only_last ? std::max(parts, part) : parts + part;
    }
  }
  return type == kTuple ? parts : elements * element_bytes(type);
}

// Bytes a device sends around a ring, by the size of the result.
double ring_factor(std::string_view opcode, double n) {
  if (opcode.starts_with("all-reduce")) return 2 * (n - 1) / n;
  if (opcode.starts_with("all-gather")) return (n - 1) / n;
  if (opcode.starts_with("reduce-scatter")) return n - 1;
  if (opcode.starts_with("all-to-all") || opcode.starts_with("ragged-all-to-all"))
    return (n - 1) / n;
  if (opcode.starts_with("collective-permute") || opcode.starts_with("collective-broadcast"))
    return 1;
  return 0;
}

double instruction_bytes(std::string_view message, double devices) {
  std::string_view opcode;
  std::string_view shape;
  for (Fields fields(message); fields.next();) {
    if (fields.number == 2) opcode = fields.bytes;
    if (fields.number == 3) shape = fields.bytes;
  }
  const double factor = ring_factor(opcode, devices);
  if (factor == 0 || opcode.ends_with("-done")) return 0;
  const bool pair = opcode.ends_with("-start") && !opcode.starts_with("all-reduce");
  return factor * shape_bytes(shape, pair);
}

double module_bytes(std::string_view message, double devices) {
  double total = 0;
  for (Fields module(message); module.next();) {
    if (module.number != 3) continue;
    for (Fields computation(module.bytes); computation.next();) {
      if (computation.number == 2) total += instruction_bytes(computation.bytes, devices);
    }
  }
  return total;
}

}  // namespace

double collective_bytes(const pjrt::OptimizedProgram& program, int64_t devices) {
  const auto n = static_cast<double>(devices);
  if (devices < 2) return 0;
  if (program.format == "hlo") return module_bytes(program.code, n);
  if (program.format != "hlo_with_config") return 0;
  double total = 0;
  for (Fields fields(program.code); fields.next();) {
    if (fields.number == 1) total += module_bytes(fields.bytes, n);
  }
  return total;
}

}  // namespace ttpu::plan
