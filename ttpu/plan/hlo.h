// The part of a compiled HLO module that costs are read from. Field numbers: xla/service/hlo.proto
// and xla/xla_data.proto of OpenXLA.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ttpu::plan {

struct HloInstruction {
  std::string_view opcode;
  std::string_view shape;           // a ShapeProto
  std::string_view backend_config;  // JSON, as the compiler writes it
  std::string_view direction;       // of a comparison: "LT", ...
  int64_t id = 0;
  int64_t tuple_index = 0;
  int64_t parameter_number = 0;
  std::optional<int64_t> constant;  // of an integer scalar
  std::vector<int64_t> operands;
  std::vector<int64_t> called;  // of a while: body, condition
};

struct HloComputation {
  int64_t root = 0;
  std::map<int64_t, HloInstruction> instructions;  // by id
};

struct HloModule {
  int64_t entry = 0;
  std::map<int64_t, HloComputation> computations;  // by id
};

// The module keeps views of `bytes`. Throws kDataLoss when they are no HloModuleProto.
HloModule parse_hlo(std::string_view bytes);

// The bytes of a shape; `only_last`: of the tuple (operand, result) that an asynchronous start
// gives, the result.
double hlo_shape_bytes(std::string_view shape, bool only_last);

// How often a `while` turns: as the compiler notes it, or from its condition, where that compares a
// counter with a constant. Nothing for another loop.
std::optional<int64_t> hlo_trip_count(const HloModule& module, const HloComputation& around,
                                      const HloInstruction& loop);

}  // namespace ttpu::plan
