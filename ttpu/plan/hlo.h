// The part of a compiled HLO module that costs are read from: the message that PJRT gives, or the
// text that XLA prints (`compiled.as_text()` of JAX, --xla_dump_hlo_as_text). Field numbers:
// xla/service/hlo.proto and xla/xla_data.proto of OpenXLA.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ttpu::plan {

// An array with its layout, or a tuple.
struct HloShape {
  int64_t element_bits = 0;  // 0: no bytes (a token)
  bool is_float8 = false;
  bool is_integer = false;  // of 8 bits or less
  std::vector<int64_t> dims;
  std::vector<int64_t> minor_to_major;
  std::vector<std::vector<int64_t>> tiles;
  int64_t memory_space = 0;  // 0: HBM. On TPU 1 is vector memory, 2 semaphores, 6 scalar memory
  bool is_tuple = false;
  std::vector<HloShape> parts;

  int64_t elements() const;
  double bytes() const;         // of the elements; of a tuple, all parts
  double padded_bytes() const;  // as laid out: the first tile fills the minor dimensions
};

// Of a convolution, which is what XLA makes of a matrix product for TPU, or of a dot.
struct HloWindowDim {
  int64_t size = 1, stride = 1, padding_low = 0, dilation = 1, base_dilation = 1;
};
struct HloContraction {
  std::vector<int64_t> lhs;  // dot: contracted dimensions
  std::vector<HloWindowDim> window;
  std::vector<int64_t> input_spatial, kernel_spatial, output_spatial;
  int64_t kernel_input_feature = 0;
  int64_t batch_groups = 1;
};

using DeviceGroups = std::vector<std::vector<int64_t>>;

// The numbers from 0 in an array of `dims`, its dimensions reordered (those that `order` leaves out
// stay), cut into groups of `size`. Throws kDataLoss where that makes no groups.
DeviceGroups iota_groups(const std::vector<int64_t>& dims, std::vector<int64_t> order,
                         int64_t size);
// Devices of a mesh of such axes that differ along `axes` alone.
DeviceGroups mesh_groups(const std::vector<int64_t>& sizes, const std::vector<int64_t>& axes);

struct HloInstruction {
  std::string_view name;
  std::string_view opcode;
  HloShape shape;
  std::string_view backend_config;  // JSON, as the compiler writes it
  std::string_view direction;       // of a comparison: "LT", ...
  std::string_view target;          // of a custom call
  int64_t id = 0;
  int64_t tuple_index = 0;
  int64_t parameter_number = 0;
  DeviceGroups groups;                             // of a collective: devices that meet; empty: all
  std::vector<std::pair<int64_t, int64_t>> pairs;  // of a permute: from, to
  std::optional<int64_t> constant;                 // of an integer scalar
  std::vector<int64_t> operands;
  std::vector<int64_t> called;   // of a while: body, condition
  std::vector<int64_t> aliased;  // operands whose memory the result takes
  HloContraction contraction;
};

struct HloComputation {
  int64_t root = 0;
  std::map<int64_t, HloInstruction> instructions;  // by id
  std::vector<int64_t> order;                      // as they run

  const HloInstruction* find(int64_t id) const;
};

struct HloModule {
  int64_t entry = 0;
  std::vector<int64_t> devices;  // of each partition; empty: the device of its number
  std::map<int64_t, HloComputation> computations;  // by id

  const HloComputation* find(int64_t id) const;
};

// The module keeps views of `bytes`. Throws kDataLoss when they are no HloModuleProto.
HloModule parse_hlo(std::string_view bytes);
// The same from text; throws kDataLoss with the line that cannot be read.
HloModule parse_hlo_text(std::string_view text);

// The type of an element as HLO names it ("bf16"). Throws kDataLoss for another.
void set_element_type(std::string_view name, HloShape* shape);

// How often a `while` turns: as the compiler notes it, or from its condition, where that compares a
// counter with a constant. Nothing for another loop.
std::optional<int64_t> hlo_trip_count(const HloModule& module, const HloComputation& around,
                                      const HloInstruction& loop);

}  // namespace ttpu::plan
