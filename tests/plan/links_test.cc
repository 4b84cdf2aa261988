#include "ttpu/plan/links.h"

#include <gtest/gtest.h>

#include "ttpu/base/error.h"

namespace ttpu::plan {
namespace {

HloInstruction permute(std::vector<std::pair<int64_t, int64_t>> pairs) {
  HloInstruction op;
  op.opcode = "collective-permute-start";
  op.pairs = std::move(pairs);
  return op;
}

LinkLoad load_of(const std::string& name, const HloInstruction& op, double bytes) {
  const Slice slice = parse_slice(name);
  return Links(slice).load_of(op, bytes);
}

double total(const LinkLoad& load) {
  double sum = 0;
  for (const double one : load.seconds) sum += one;
  return sum;
}

constexpr double kSecond = 50e9;  // what a link of v5e sends in it

TEST(Links, ASendTakesEachLinkOnItsWay) {
  // Devices of 2x4 stand as 0 1 / 2 3 / 4 5 / 6 7.
  const LinkLoad near = load_of("v5e:2x4", permute({{0, 1}}), kSecond);
  EXPECT_EQ(near.latency, 1e-6);
  EXPECT_EQ(near.longest(), 1);
  EXPECT_EQ(total(near), 1);
  const LinkLoad far = load_of("v5e:2x4", permute({{0, 7}}), kSecond);
  EXPECT_EQ(far.latency, 4e-6);
  EXPECT_EQ(far.longest(), 1);
  EXPECT_EQ(total(far), 4);
  // Two that meet on the link from 2 to 4.
  EXPECT_EQ(load_of("v5e:2x4", permute({{0, 4}, {2, 6}}), kSecond).longest(), 2);
  // To and fro are different links.
  EXPECT_EQ(load_of("v5e:2x4", permute({{0, 1}, {1, 0}}), kSecond).longest(), 1);
  EXPECT_EQ(total(load_of("v5e:2x4", permute({{3, 3}}), kSecond)), 0);
}

TEST(Links, ARingIsGoneTheShorterWay) {
  // Sixteen in a row close to a ring, eight do not.
  EXPECT_EQ(load_of("v5e:16x16", permute({{0, 15}}), kSecond).latency, 1e-6);
  EXPECT_EQ(load_of("v5e:8x16", permute({{0, 7}}), kSecond).latency, 7e-6);
  EXPECT_EQ(load_of("v5e:16x16", permute({{15 * 16, 0}}), kSecond).latency, 1e-6);
  // Half by each way where they are equal.
  const LinkLoad half = load_of("v5e:16x16", permute({{0, 8}}), kSecond);
  EXPECT_EQ(half.latency, 8e-6);
  EXPECT_EQ(half.longest(), 0.5);
  EXPECT_EQ(total(half), 8);
}

TEST(Links, DevicesOfAChipSendThroughNone) {
  EXPECT_EQ(total(load_of("tpu7x:2x2x1", permute({{0, 1}}), kSecond)), 0);
  EXPECT_EQ(load_of("tpu7x:2x2x1", permute({{0, 3}}), 200e9).longest(), 2);
}

TEST(Links, AnAllToAllIsLimitedByTheMiddleOfTheSlice) {
  HloInstruction op;
  op.opcode = "all-to-all";
  // 2x4: four devices send an eighth of their bytes to four others, over two links.
  const LinkLoad flat = load_of("v5e:2x4", op, 8 * kSecond);
  EXPECT_NEAR(flat.longest(), 8, 1e-9);
  EXPECT_EQ(flat.latency, 4e-6);
  EXPECT_EQ(flat.sent_bytes, 7 * kSecond);
  // 8x8: 32 send to 32 a 64th each, over eight links; twice that share of the bytes.
  EXPECT_NEAR(load_of("v5e:8x8", op, 8 * kSecond).longest(), 16, 1e-9);
  // A ring: a quarter of what an all-gather of the same bytes takes, N/4 of half the bytes.
  const Slice ring{"sixteen in a row", chip_of_topology("v5e"), {16, 1}};
  EXPECT_NEAR(Links(ring).load_of(op, 8 * kSecond).longest(), 16, 1e-9);
}

TEST(Links, GroupsSendAtOnce) {
  HloInstruction op;
  op.opcode = "all-to-all";
  op.groups = {{0, 1, 2, 3}, {4, 5, 6, 7}};
  // Each 2x2 by itself: two devices send to two, over two links.
  EXPECT_NEAR(load_of("v5e:2x4", op, 4 * kSecond).longest(), 2, 1e-9);
  // Groups that lie across each other share the links.
  op.groups = {{0, 4}, {2, 6}};
  EXPECT_NEAR(load_of("v5e:2x4", op, 2 * kSecond).longest(), 2, 1e-9);
}

TEST(Links, AnotherSlicesDevicesAreRefused) {
  try {
    load_of("v5e:2x2", permute({{0, 4}}), 1);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kInvalidArgument);
    EXPECT_NE(std::string(error.what()).find("v5e:2x2 has 4 devices"), std::string::npos);
  }
}

}  // namespace
}  // namespace ttpu::plan
