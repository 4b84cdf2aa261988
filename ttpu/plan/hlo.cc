#include "ttpu/plan/hlo.h"

#include <algorithm>

#include "ttpu/plan/proto_fields.h"

namespace ttpu::plan {
namespace {

// Repeated integers: one a field, or packed into one.
void add_integers(const Fields& field, std::vector<int64_t>* out) {
  if (field.bytes.empty()) return out->push_back(static_cast<int64_t>(field.value));
  for (Fields packed(field.bytes); !packed.done();) {
    out->push_back(static_cast<int64_t>(packed.varint()));
  }
}

// Of a LiteralProto, when it is one 32- or 64-bit integer.
std::optional<int64_t> scalar_of(std::string_view literal) {
  std::vector<int64_t> values;
  for (Fields fields(literal); fields.next();) {
    if (fields.number >= 4 && fields.number <= 7) add_integers(fields, &values);
  }
  return values.size() == 1 ? std::optional(values[0]) : std::nullopt;
}

HloInstruction parse_instruction(std::string_view message) {
  HloInstruction instruction;
  std::string_view literal;
  for (Fields fields(message); fields.next();) {
    switch (fields.number) {
      case 2:
        instruction.opcode = fields.bytes;
        break;
      case 3:
        instruction.shape = fields.bytes;
        break;
      case 8:
        literal = fields.bytes;
        break;
      case 9:
        instruction.parameter_number = static_cast<int64_t>(fields.value);
        break;
      case 13:
        instruction.tuple_index = static_cast<int64_t>(fields.value);
        break;
      case 35:
        instruction.id = static_cast<int64_t>(fields.value);
        break;
      case 36:
        add_integers(fields, &instruction.operands);
        break;
      case 38:
        add_integers(fields, &instruction.called);
        break;
      case 43:
        instruction.backend_config = fields.bytes;
        break;
      case 63:
        instruction.direction = fields.bytes;
        break;
      default:
        break;
    }
  }
  if (instruction.opcode == "constant") instruction.constant = scalar_of(literal);
  return instruction;
}

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

}  // namespace

double hlo_shape_bytes(std::string_view message, bool only_last) {
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
      const double part = hlo_shape_bytes(fields.bytes, false);
      parts = only_last ? std::max(parts, part) : parts + part;
    }
  }
  return type == kTuple ? parts : elements * element_bytes(type);
}

HloModule parse_hlo(std::string_view bytes) {
  HloModule module;
  for (Fields fields(bytes); fields.next();) {
    if (fields.number == 6) module.entry = static_cast<int64_t>(fields.value);
    if (fields.number != 3) continue;
    HloComputation computation;
    int64_t id = 0;
    for (Fields inner(fields.bytes); inner.next();) {
      if (inner.number == 5) id = static_cast<int64_t>(inner.value);
      if (inner.number == 6) computation.root = static_cast<int64_t>(inner.value);
      if (inner.number != 2) continue;
      HloInstruction instruction = parse_instruction(inner.bytes);
      const int64_t key = instruction.id;
      computation.instructions.emplace(key, std::move(instruction));
    }
    module.computations.emplace(id, std::move(computation));
  }
  return module;
}

}  // namespace ttpu::plan
