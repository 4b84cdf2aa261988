// Compiled programs, written by hand as protobuf messages.
#include "ttpu/plan/hlo.h"

#include <gtest/gtest.h>

#include "ttpu/base/error.h"
#include "ttpu/plan/schedule.h"

namespace ttpu::plan {
namespace {

std::string varint(uint64_t value) {
  std::string bytes;
  for (; value >= 128; value >>= 7) bytes += static_cast<char>(value | 128);
  return bytes + static_cast<char>(value);
}
std::string text(int number, const std::string& bytes) {
  return varint(static_cast<uint64_t>(number) << 3 | 2) + varint(bytes.size()) + bytes;
}
std::string number(int field, int64_t value) {
  return varint(static_cast<uint64_t>(field) << 3) + varint(static_cast<uint64_t>(value));
}

struct Op {
  std::string opcode;
  int64_t id;
  std::vector<int64_t> operands = {};
  std::vector<int64_t> called = {};
  std::string more = "";
};

std::string instruction(const Op& op) {
  const std::string f32_100 = number(2, 11) + number(3, 100);
  std::string bytes = text(2, op.opcode) + text(3, f32_100) + number(35, op.id) + op.more;
  for (const int64_t id : op.operands) bytes += number(36, id);
  for (const int64_t id : op.called) bytes += number(38, id);
  return bytes;
}

Op constant(int64_t id, int64_t value) {
  return {"constant", id, {}, {}, text(8, number(4, value))};
}
Op element(int64_t id, int64_t tuple, int64_t index) {
  return {"get-tuple-element", id, {tuple}, {}, number(13, index)};
}
Op compare(int64_t id, int64_t a, int64_t b, const std::string& direction) {
  return {"compare", id, {a, b}, {}, text(63, direction)};
}

std::string computation(int64_t id, int64_t root, const std::vector<Op>& ops) {
  std::string bytes = number(5, id) + number(6, root);
  for (const Op& op : ops) bytes += text(2, instruction(op));
  return text(3, bytes);
}

constexpr int64_t kEntry = 1, kBody = 2, kCondition = 3, kFused = 4;

// A counter that starts at 2 and grows by 3, and an all-reduce each turn.
std::string loop_with(const std::string& condition, const std::string& config = "") {
  const std::string noted = config.empty() ? "" : text(43, config);
  return computation(kEntry, 12,
                     {constant(10, 2),
                      {"parameter", 9},
                      {"tuple", 11, {10, 9}},
                      {"while", 12, {11}, {kBody, kCondition}, noted}}) +
         computation(kBody, 26,
                     {{"parameter", 20},
                      element(21, 20, 0),
                      constant(22, 3),
                      {"add", 23, {21, 22}},
                      element(24, 20, 1),
                      {"all-reduce", 25, {24}},
                      {"negate", 27, {25}, {}, text(43, R"({"estimated_cycles":"70"})")},
                      {"tuple", 26, {23, 27}}}) +
         condition + number(6, kEntry);
}

ScheduleCost cost_of(const pjrt::OptimizedProgram& program) {
  return schedule_cost(program, parse_slice("v5e:2x2"));
}

const double kOneTurn = 400 * 2.0 * 3 / 4;  // bytes of an all-reduce of 100 floats over 4 devices

TEST(Hlo, WhatStandsInALoopCountsAsOftenAsItTurns) {
  const std::string condition = computation(
      kCondition, 33,
      {{"parameter", 30}, element(31, 30, 0), constant(32, 12), compare(33, 31, 32, "LT")});
  const ScheduleCost cost = cost_of({"hlo", loop_with(condition)});
  EXPECT_EQ(cost.ici_bytes, 4 * kOneTurn);  // at 2, 5, 8 and 11
  EXPECT_EQ(cost.cycles, 4 * 70);
  EXPECT_EQ(cost.uncounted_loops, 0);
}

TEST(Hlo, AFusedConditionIsFollowed) {
  const std::string condition = computation(kCondition, 33,
                                            {{"parameter", 30},
                                             element(31, 30, 0),
                                             constant(32, 11),
                                             {"fusion", 33, {31, 32}, {kFused}}}) +
                                computation(kFused, 42,
                                            {{"parameter", 40, {}, {}, number(9, 0)},
                                             {"parameter", 41, {}, {}, number(9, 1)},
                                             compare(42, 41, 40, "GT")});
  EXPECT_EQ(cost_of({"hlo", loop_with(condition)}).ici_bytes, 3 * kOneTurn);
}

TEST(Hlo, TheCountThatTheCompilerNotesHolds) {
  const std::string noted = R"({"known_trip_count":{"n":"12"}})";
  EXPECT_EQ(cost_of({"hlo", loop_with("", noted)}).ici_bytes, 12 * kOneTurn);
}

// Field by field as XLA writes them: lists, an iota, axes of a mesh, and pairs without their zeros.
TEST(Hlo, GroupsAndPairsAreRead) {
  const auto read = [](const std::string& more) {
    const std::string bytes =
        computation(kEntry, 10, {{"all-to-all", 10, {}, {}, more}}) + number(6, kEntry);
    return parse_hlo(bytes).find(kEntry)->find(10)->groups;
  };
  const DeviceGroups columns = {{0, 2}, {1, 3}};
  EXPECT_EQ(read(text(49, number(1, 0) + number(1, 2)) + text(49, number(1, 1) + number(1, 3))),
            columns);
  EXPECT_EQ(read(text(87, text(2, number(1, 2) + number(2, 2) + number(3, 2) + number(3, 2) +
                                      number(4, 1) + number(4, 0)))),
            columns);
  EXPECT_EQ(
      read(text(87, text(3, text(1, text(1, number(2, 2)) + text(1, number(2, 2))) + text(2, "")))),
      columns);
  const std::string permute = computation(
      kEntry, 10,
      {{"collective-permute", 10, {}, {}, text(52, number(2, 1)) + text(52, number(1, 1))}});
  using Pairs = std::vector<std::pair<int64_t, int64_t>>;
  EXPECT_EQ(parse_hlo(permute).find(kEntry)->find(10)->pairs, (Pairs{{0, 1}, {1, 0}}));
}

TEST(Hlo, ALoopThatDoesNotCountIsReported) {
  const std::string condition = computation(
      kCondition, 33,
      {{"parameter", 30}, element(31, 30, 1), constant(32, 12), compare(33, 31, 32, "LT")});
  const ScheduleCost cost = cost_of({"hlo", loop_with(condition)});
  EXPECT_EQ(cost.ici_bytes, kOneTurn);
  EXPECT_EQ(cost.uncounted_loops, 1);
}

}  // namespace
}  // namespace ttpu::plan
