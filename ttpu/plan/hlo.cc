// Reads the message that PJRT gives.
#include "ttpu/plan/hlo.h"

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

std::vector<int64_t> integers_of(std::string_view message, int number) {
  std::vector<int64_t> values;
  for (Fields fields(message); fields.next();) {
    if (fields.number == number) add_integers(fields, &values);
  }
  return values;
}

int64_t integer_of(std::string_view message, int number, int64_t otherwise) {
  const std::vector<int64_t> values = integers_of(message, number);
  return values.empty() ? otherwise : values.back();
}

// Of a LiteralProto, when it is one 32- or 64-bit integer.
std::optional<int64_t> scalar_of(std::string_view literal) {
  std::vector<int64_t> values;
  for (Fields fields(literal); fields.next();) {
    if (fields.number >= 4 && fields.number <= 7) add_integers(fields, &values);
  }
  return values.size() == 1 ? std::optional(values[0]) : std::nullopt;
}

// xla.PrimitiveType by number. Unknown ones count as a byte.
std::string_view type_name(uint64_t type) {
  static constexpr std::string_view kNames[] = {
      "token",      "pred",       "s8",   "s16",    "s32",      "s64",    "u8",     "u16",
      "u32",        "u64",        "f16",  "f32",    "f64",      "tuple",  "opaque", "c64",
      "bf16",       "token",      "c128", "f8e5m2", "f8e4m3fn", "s4",     "u4",     "f8e4m3b11fnuz",
      "f8e5m2fnuz", "f8e4m3fnuz", "s2",   "u2",     "f8e4m3",   "f8e3m4", "s1",     "u1",
      "f4e2m1fn",   "f8e8m0fnu"};
  return type < std::size(kNames) ? kNames[type] : "f8e4m3";
}

void read_layout(std::string_view message, HloShape* shape) {
  for (Fields fields(message); fields.next();) {
    if (fields.number == 1) add_integers(fields, &shape->minor_to_major);
    if (fields.number == 6) shape->tiles.push_back(integers_of(fields.bytes, 1));
    if (fields.number == 8) shape->memory_space = static_cast<int64_t>(fields.value);
  }
}

HloShape parse_shape(std::string_view message) {
  constexpr uint64_t kTuple = 13;
  HloShape shape;
  for (Fields fields(message); fields.next();) {
    if (fields.number == 2) {
      shape.is_tuple = fields.value == kTuple;
      if (!shape.is_tuple) set_element_type(type_name(fields.value), &shape);
    }
    if (fields.number == 3) add_integers(fields, &shape.dims);
    if (fields.number == 4) shape.parts.push_back(parse_shape(fields.bytes));
    if (fields.number == 5) read_layout(fields.bytes, &shape);
  }
  return shape;
}

std::vector<HloWindowDim> parse_window(std::string_view message) {
  std::vector<HloWindowDim> dims;
  for (Fields fields(message); fields.next();) {
    if (fields.number != 1) continue;
    HloWindowDim dim;
    for (Fields inner(fields.bytes); inner.next();) {
      const auto value = static_cast<int64_t>(inner.value);
      if (inner.number == 1) dim.size = value;
      if (inner.number == 2) dim.stride = value;
      if (inner.number == 3) dim.padding_low = value;
      if (inner.number == 5) dim.dilation = value;
      if (inner.number == 6) dim.base_dilation = value;
    }
    dims.push_back(dim);
  }
  return dims;
}

void read_convolution(std::string_view message, HloContraction* out) {
  for (Fields fields(message); fields.next();) {
    if (fields.number == 3) out->kernel_input_feature = static_cast<int64_t>(fields.value);
    if (fields.number == 6) add_integers(fields, &out->kernel_spatial);
    if (fields.number == 11) add_integers(fields, &out->input_spatial);
    if (fields.number == 12) add_integers(fields, &out->output_spatial);
  }
}

// SourceTarget { source = 1, target = 2 }; a zero is left out.
std::pair<int64_t, int64_t> parse_pair(std::string_view message) {
  return {integer_of(message, 1, 0), integer_of(message, 2, 0)};
}

// IotaReplicaGroupListProto { num_replica_groups = 1, num_devices_per_group = 2,
// iota_reshape_dims = 3, iota_transpose_perm = 4 }
DeviceGroups parse_iota_groups(std::string_view message) {
  return iota_groups(integers_of(message, 3), integers_of(message, 4), integer_of(message, 2, 1));
}

// Groups as axes of a mesh: MeshAxesReplicaGroupListProto { mesh = 1 { axes = 1 { size = 2 } },
// axes = 2 { mesh_axis_index = 1 } }.
DeviceGroups parse_mesh_groups(std::string_view message) {
  std::vector<int64_t> sizes;
  std::vector<int64_t> axes;
  for (Fields fields(message); fields.next();) {
    if (fields.number == 2) axes.push_back(integer_of(fields.bytes, 1, 0));
    if (fields.number != 1) continue;
    for (Fields mesh(fields.bytes); mesh.next();) {
      if (mesh.number == 1) sizes.push_back(integer_of(mesh.bytes, 2, 1));
    }
  }
  return mesh_groups(sizes, axes);
}

// CollectiveDeviceListProto { replica_groups = 1, iota_replica_group_list = 2,
// mesh_axes_replica_group_list = 3 }
DeviceGroups parse_device_list(std::string_view message) {
  DeviceGroups groups;
  for (Fields fields(message); fields.next();) {
    if (fields.number == 1) groups.push_back(integers_of(fields.bytes, 1));
    if (fields.number == 2) return parse_iota_groups(fields.bytes);
    if (fields.number == 3) return parse_mesh_groups(fields.bytes);
  }
  return groups;
}

HloInstruction parse_instruction(std::string_view message) {
  HloInstruction instruction;
  std::string_view literal;
  for (Fields fields(message); fields.next();) {
    const auto value = static_cast<int64_t>(fields.value);
    switch (fields.number) {
      case 1:
        instruction.name = fields.bytes;
        break;
      case 2:
        instruction.opcode = fields.bytes;
        break;
      case 3:
        instruction.shape = parse_shape(fields.bytes);
        break;
      case 8:
        literal = fields.bytes;
        break;
      case 9:
        instruction.parameter_number = value;
        break;
      case 13:
        instruction.tuple_index = value;
        break;
      case 15:
        instruction.contraction.window = parse_window(fields.bytes);
        break;
      case 16:
        read_convolution(fields.bytes, &instruction.contraction);
        break;
      case 28:
        instruction.target = fields.bytes;
        break;
      case 30:
        instruction.contraction.lhs = integers_of(fields.bytes, 1);
        break;
      case 35:
        instruction.id = value;
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
      case 49:
        instruction.groups.push_back(integers_of(fields.bytes, 1));
        break;
      case 52:
        instruction.pairs.push_back(parse_pair(fields.bytes));
        break;
      case 61:
        instruction.contraction.batch_groups = std::max<int64_t>(1, value);
        break;
      case 63:
        instruction.direction = fields.bytes;
        break;
      case 74:  // OutputOperandAliasing { operand_index = 2 }
        instruction.aliased.push_back(integer_of(fields.bytes, 2, 0));
        break;
      case 87:
        instruction.groups = parse_device_list(fields.bytes);
        break;
      default:
        break;
    }
  }
  if (instruction.opcode == "constant") instruction.constant = scalar_of(literal);
  return instruction;
}

// HloScheduleProto { sequences = 1: map of computation id to { instruction_ids = 1 } }
void read_schedule(std::string_view message, HloModule* module) {
  for (Fields fields(message); fields.next();) {
    if (fields.number != 1) continue;
    std::string_view sequence;
    int64_t id = 0;
    for (Fields entry(fields.bytes); entry.next();) {
      if (entry.number == 1) id = static_cast<int64_t>(entry.value);
      if (entry.number == 2) sequence = entry.bytes;
    }
    const auto found = module->computations.find(id);
    if (found != module->computations.end()) found->second.order = integers_of(sequence, 1);
  }
}

// Of HloModuleConfigProto { static_device_assignment = 15: DeviceAssignmentProto {
// computation_devices = 3 { replica_device_ids = 1 } } }, where there is one replica.
std::vector<int64_t> assigned_devices(std::string_view config) {
  std::vector<int64_t> devices;
  for (Fields fields(config); fields.next();) {
    if (fields.number != 15) continue;
    for (Fields partition(fields.bytes); partition.next();) {
      if (partition.number != 3) continue;
      const std::vector<int64_t> replicas = integers_of(partition.bytes, 1);
      if (replicas.size() != 1) return {};
      devices.push_back(replicas[0]);
    }
  }
  return devices;
}

}  // namespace

HloModule parse_hlo(std::string_view bytes) {
  // HloModuleProtoWithConfig has the module as field 1, where HloModuleProto has its name, the
  // configuration as field 2, and no computations.
  std::string_view first;
  std::string_view second;
  bool whole = false;
  for (Fields fields(bytes); fields.next();) {
    if (fields.number == 1) first = fields.bytes;
    if (fields.number == 2) second = fields.bytes;
    whole = whole || fields.number == 3;
  }
  HloModule module;
  if (!whole) {
    bytes = first;
    module.devices = assigned_devices(second);
  }
  std::string_view schedule;
  for (Fields fields(bytes); fields.next();) {
    if (fields.number == 6) module.entry = static_cast<int64_t>(fields.value);
    if (fields.number == 7) schedule = fields.bytes;
    if (fields.number != 3) continue;
    HloComputation computation;
    int64_t id = 0;
    for (Fields inner(fields.bytes); inner.next();) {
      if (inner.number == 5) id = static_cast<int64_t>(inner.value);
      if (inner.number == 6) computation.root = static_cast<int64_t>(inner.value);
      if (inner.number != 2) continue;
      HloInstruction instruction = parse_instruction(inner.bytes);
      const int64_t key = instruction.id;
      computation.order.push_back(key);
      computation.instructions.emplace(key, std::move(instruction));
    }
    module.computations.emplace(id, std::move(computation));
  }
  read_schedule(schedule, &module);
  return module;
}

}  // namespace ttpu::plan
