// Walks a compiled program as it runs: the bodies of loops as often as they turn.
#include <charconv>

#include "ttpu/plan/cost.h"
#include "ttpu/plan/hlo.h"
#include "ttpu/plan/proto_fields.h"

namespace ttpu::plan {
namespace {

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

double collective_bytes(const HloInstruction& op, double devices) {
  const double factor = ring_factor(op.opcode, devices);
  if (factor == 0 || op.opcode.ends_with("-done")) return 0;
  const bool pair = op.opcode.ends_with("-start") && !op.opcode.starts_with("all-reduce");
  return factor * hlo_shape_bytes(op.shape, pair);
}

// "estimated_cycles":"1234"
double estimated_cycles(std::string_view config) {
  constexpr std::string_view kKey = "\"estimated_cycles\":";
  const size_t at = config.find(kKey);
  if (at == std::string_view::npos) return 0;
  const size_t first = config.find_first_of("0123456789", at + kKey.size());
  int64_t cycles = 0;
  if (first != std::string_view::npos) {
    std::from_chars(config.data() + first, config.data() + config.size(), cycles);
  }
  return static_cast<double>(cycles);
}

class Walk {
 public:
  Walk(const HloModule& module, int64_t devices)
      : module_(module), devices_(static_cast<double>(devices)) {}

  void visit(int64_t id, double times) {
    const auto found = module_.computations.find(id);
    if (found == module_.computations.end()) return;
    for (const auto& [key, op] : found->second.instructions) {
      if (devices_ > 1) cost.collective_bytes += times * plan::collective_bytes(op, devices_);
      cost.cycles += times * estimated_cycles(op.backend_config);
      if (op.opcode == "while") {
        const auto turns = hlo_trip_count(module_, found->second, op);
        if (!turns) ++cost.uncounted_loops;
        for (const int64_t inner : op.called)
          visit(inner, times * static_cast<double>(turns.value_or(1)));
      } else if (op.opcode == "call" || op.opcode == "conditional" || op.opcode == "async-start") {
        for (const int64_t inner : op.called) visit(inner, times);
      }
    }
  }

  CompiledCost cost;

 private:
  const HloModule& module_;
  double devices_;
};

}  // namespace

CompiledCost compiled_cost(const pjrt::OptimizedProgram& program, int64_t devices) {
  std::string_view bytes = program.code;
  if (program.format == "hlo_with_config") {
    for (Fields fields(program.code); fields.next();) {
      if (fields.number == 1) bytes = fields.bytes;
    }
  } else if (program.format != "hlo") {
    return {};
  }
  const HloModule module = parse_hlo(bytes);
  Walk walk(module, devices);
  walk.visit(module.entry, 1);
  return walk.cost;
}

}  // namespace ttpu::plan
