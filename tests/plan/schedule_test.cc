// Excerpts of what libtpu 0.0.52 makes of programs for v5e, in XLA's text.
#include "ttpu/plan/schedule.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "ttpu/plan/hlo_work.h"

namespace ttpu::plan {
namespace {

ScheduleCost cost_of(const std::string& text, const std::string& slice = "v5e:2x2") {
  return schedule_cost(parse_hlo_text(text), parse_slice(slice));
}

// A matrix product whose weights are brought by an asynchronous copy that nothing hides.
constexpr const char* kProduct = R"(HloModule m, is_scheduled=true

%fused_computation (param_0: bf16[64,4096], param_1: bf16[4096,1024]) -> bf16[64,1024] {
  %param_0 = bf16[64,4096]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  %param_1 = bf16[4096,1024]{1,0:T(8,128)(2,1)S(1)} parameter(1)
  ROOT %convolution.1 = bf16[64,1024]{1,0:T(8,128)(2,1)} convolution(%param_0, %param_1), dim_labels=bf_io->bf
}

ENTRY %main (x: bf16[64,4096], w: bf16[4096,1024]) -> bf16[64,1024] {
  %x = bf16[64,4096]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  %w = bf16[4096,1024]{1,0:T(8,128)(2,1)} parameter(1)
  %copy-start = (bf16[4096,1024]{1,0:T(8,128)(2,1)S(1)}, bf16[4096,1024]{1,0:T(8,128)(2,1)}, u32[]{:S(2)}) copy-start(%w)
  %copy-done = bf16[4096,1024]{1,0:T(8,128)(2,1)S(1)} copy-done(%copy-start)
  ROOT %fusion = bf16[64,1024]{1,0:T(8,128)(2,1)} fusion(%x, %copy-done), kind=kOutput, calls=%fused_computation, backend_config={"window_config":{"estimated_cycles":"15000"}}
}
)";

TEST(Schedule, AProductIsCountedWithItsBytesAndItsWaits) {
  const ScheduleCost cost = cost_of(kProduct);
  const double weights = 4096.0 * 1024 * 2;
  EXPECT_EQ(cost.flops, 2.0 * 64 * 4096 * 1024);
  EXPECT_EQ(cost.hbm_bytes, weights + 64.0 * 1024 * 2);
  EXPECT_EQ(cost.cycles, 15000);
  EXPECT_NEAR(cost.exposed_copy_seconds, weights / 819e9, 1e-12);
  EXPECT_NEAR(cost.seconds, weights / 819e9 + 15000 / 1.5e9, 1e-12);
  EXPECT_EQ(cost.bound, "HBM");
  EXPECT_NEAR(cost.limit_seconds, cost.hbm_bytes / 819e9, 1e-15);
}

// As libtpu writes the product of a head: the weight goes through a fusion of nothing but a
// bitcast.
TEST(Schedule, AWeightBehindABitcastIsRead) {
  const ScheduleCost cost = cost_of(R"(
%bitcast_fusion (input: bf16[32064,4096]) -> bf16[32064,4096] {
  %input = bf16[32064,4096]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %bitcast = bf16[32064,4096]{1,0:T(8,128)(2,1)} bitcast(%input)
}

%fused_computation (param_0: bf16[32064,4096], param_1: bf16[8,4096]) -> f32[8,32064] {
  %param_1 = bf16[8,4096]{1,0:T(8,128)(2,1)S(1)} parameter(1)
  %param_0 = bf16[32064,4096]{1,0:T(8,128)(2,1)} parameter(0)
  %fusion.1 = bf16[32064,4096]{1,0:T(8,128)(2,1)} fusion(%param_0), kind=kLoop, calls=%bitcast_fusion
  ROOT %convolution = f32[8,32064]{1,0:T(8,128)} convolution(%param_1, %fusion.1), dim_labels=bf_oi->bf
}

ENTRY %main (w: bf16[32064,4096], x: bf16[8,4096]) -> f32[8,32064] {
  %w = bf16[32064,4096]{1,0:T(8,128)(2,1)} parameter(0)
  %x = bf16[8,4096]{1,0:T(8,128)(2,1)S(1)} parameter(1)
  ROOT %fusion = f32[8,32064]{1,0:T(8,128)S(1)} fusion(%w, %x), kind=kOutput, calls=%fused_computation, backend_config={"estimated_cycles":"686356"}
})");
  EXPECT_EQ(cost.hbm_bytes, 32064.0 * 4096 * 2);
  EXPECT_EQ(cost.flops, 2.0 * 8 * 32064 * 4096);
}

// The same copy beside an operator that is long enough.
TEST(Schedule, ACopyBesideWorkIsHidden) {
  const ScheduleCost cost = cost_of(R"(
ENTRY %main (a: f32[1024], w: bf16[4096,1024]) -> bf16[4096,1024] {
  %a = f32[1024]{0:T(1024)S(1)} parameter(0)
  %w = bf16[4096,1024]{1,0} parameter(1)
  %copy-start = (bf16[4096,1024]{1,0:S(1)}, bf16[4096,1024]{1,0}, u32[]{:S(2)}) copy-start(%w)
  %negate = f32[1024]{0:T(1024)S(1)} negate(%a), backend_config={"estimated_cycles":"30000"}
  ROOT %copy-done = bf16[4096,1024]{1,0:S(1)} copy-done(%copy-start)
})");
  EXPECT_EQ(cost.exposed_copy_seconds, 0);
  EXPECT_NEAR(cost.seconds, 30000 / 1.5e9, 1e-12);
}

// What reads HBM meanwhile leaves less of it to the copy.
TEST(Schedule, CopiesShareTheBandwidth) {
  const ScheduleCost cost = cost_of(R"(
ENTRY %main (a: f32[2048,1024], w: bf16[4096,1024]) -> bf16[4096,1024] {
  %a = f32[2048,1024]{1,0} parameter(0)
  %w = bf16[4096,1024]{1,0} parameter(1)
  %copy-start = (bf16[4096,1024]{1,0:S(1)}, bf16[4096,1024]{1,0}, u32[]{:S(2)}) copy-start(%w)
  %negate = f32[2048,1024]{1,0:S(1)} negate(%a), backend_config={"estimated_cycles":"18000"}
  ROOT %copy-done = bf16[4096,1024]{1,0:S(1)} copy-done(%copy-start)
})");
  const double all = 2 * 4096.0 * 1024 * 2;
  EXPECT_NEAR(cost.seconds, std::max(all / 819e9, 15000 / 1.5e9), 1e-12);
  EXPECT_GT(cost.exposed_copy_seconds, 0);
}

TEST(Schedule, ASliceMovesWhatItTakes) {
  const ScheduleCost cost = cost_of(R"(
%async_computation (p: bf16[256,4096]) -> bf16[64,4096] {
  %p = bf16[256,4096]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %slice = bf16[64,4096]{1,0:T(8,128)(2,1)S(1)} slice(%p), slice={[0:64], [0:4096]}
}
ENTRY %main (w: bf16[256,4096]) -> bf16[64,4096] {
  %w = bf16[256,4096]{1,0:T(8,128)(2,1)} parameter(0)
  %slice-start = ((bf16[256,4096]{1,0:T(8,128)(2,1)}), bf16[64,4096]{1,0:T(8,128)(2,1)S(1)}, s32[]{:S(2)}) async-start(%w), calls=%async_computation
  ROOT %slice-done = bf16[64,4096]{1,0:T(8,128)(2,1)S(1)} async-done(%slice-start)
})");
  EXPECT_EQ(cost.hbm_bytes, 64.0 * 4096 * 2);
}

// The same as XLA's text has it without a computation of its own.
TEST(Schedule, ASliceInShortMovesWhatItTakes) {
  const ScheduleCost cost = cost_of(R"(
ENTRY %main (w: bf16[256,4096]) -> bf16[64,4096] {
  %w = bf16[256,4096]{1,0:T(8,128)(2,1)} parameter(0)
  %slice-start = ((bf16[256,4096]{1,0:T(8,128)(2,1)}), bf16[64,4096]{1,0:T(8,128)(2,1)S(1)}, s32[]{:S(2)}) slice-start(%w), slice={[0:64], [0:4096]}
  ROOT %slice-done = bf16[64,4096]{1,0:T(8,128)(2,1)S(1)} slice-done(%slice-start)
})");
  EXPECT_EQ(cost.hbm_bytes, 64 * 4096 * 2);
}

TEST(Schedule, AnAllReduceIsExposedAndAStartedGatherIsNot) {
  const ScheduleCost cost = cost_of(R"(
ENTRY %main (a: bf16[2048,4096], b: bf16[16,128]) -> bf16[64,128] {
  %a = bf16[2048,4096]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  %b = bf16[16,128]{1,0:T(8,128)(2,1)S(1)} parameter(1)
  %all-gather-start = (bf16[16,128]{1,0:S(1)}, bf16[64,128]{1,0:S(1)}) all-gather-start(%b), replica_groups={{0,1,2,3}}, dimensions={0}
  %all-reduce = bf16[2048,4096]{1,0:T(8,128)(2,1)S(1)} all-reduce(%a), replica_groups=mesh['axis_0'=4] {'axis_0'}, to_apply=%add
  %negate = bf16[2048,4096]{1,0:T(8,128)(2,1)S(1)} negate(%all-reduce), backend_config={"estimated_cycles":"1500000"}
  ROOT %all-gather-done = bf16[64,128]{1,0:S(1)} all-gather-done(%all-gather-start)
})");
  ASSERT_EQ(cost.collectives.size(), 2U);
  const CollectiveCost& gather = cost.collectives[0];
  const CollectiveCost& reduce = cost.collectives[1];
  EXPECT_EQ(gather.opcode, "all-gather");
  EXPECT_EQ(gather.group, 4);
  EXPECT_EQ(gather.bytes, 64.0 * 128 * 2);
  EXPECT_EQ(gather.sent_bytes, 64.0 * 128 * 2 * 3 / 4);
  EXPECT_EQ(gather.exposed_seconds, 0);
  EXPECT_EQ(reduce.group, 4);
  EXPECT_EQ(reduce.sent_bytes, 2048.0 * 4096 * 2 * 1.5);
  EXPECT_GE(reduce.exposed_seconds, reduce.sent_bytes / 100e9);  // two links of 50 GB/s
  EXPECT_EQ(cost.exposed_collective_seconds, reduce.exposed_seconds);
}

// How SparseCores' collectives are written: set up without operands, which the update brings.
TEST(Schedule, ACollectiveOfSparseCoresRunsBesideTheProgram) {
  const auto program = [](const std::string& beside) {
    return cost_of(R"(
%offload (p: bf16[1024,1024]) -> bf16[8192,1024] {
  %p = bf16[1024,1024]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %gather = bf16[8192,1024]{1,0:T(8,128)(2,1)} all-gather(%p), channel_id=1, replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={0}, use_global_device_ids=true
}
%wrapped (p: bf16[1024,1024]) -> bf16[8192,1024] {
  %p = bf16[1024,1024]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %call = bf16[8192,1024]{1,0:T(8,128)(2,1)} custom-call(%p), custom_call_target="offload", called_computations={%offload}
}
ENTRY %main (w: f32[1024,1024], x: bf16[64,64]) -> (bf16[8192,1024], bf16[64,64]) {
  %w = f32[1024,1024]{1,0:T(8,128)} parameter(0)
  %x = bf16[64,64]{1,0:T(8,128)(2,1)} parameter(1)
  %start = (u32[]{:S(2)}, u32[]{:S(2)}) async-start(), calls=%wrapped
  %c = bf16[1024,1024]{1,0:T(8,128)(2,1)} convert(%w), backend_config={"estimated_cycles":"1000"}
  %update = ((bf16[1024,1024]{1,0:T(8,128)(2,1)}), bf16[8192,1024]{1,0:T(8,128)(2,1)}, u32[]{:S(2)}) async-update(%start, %c)
  %y = bf16[64,64]{1,0:T(8,128)(2,1)} negate(%x), backend_config={"estimated_cycles":")" +
                       beside + R"("}
  %done = bf16[8192,1024]{1,0:T(8,128)(2,1)} async-done(%update)
  ROOT %both = (bf16[8192,1024]{1,0:T(8,128)(2,1)}, bf16[64,64]{1,0:T(8,128)(2,1)}) tuple(%done, %y)
})",
                   "v5e:2x4");
  };
  const ScheduleCost waits = program("1");
  ASSERT_EQ(waits.collectives.size(), 1);
  EXPECT_EQ(waits.collectives[0].opcode, "all-gather");
  EXPECT_EQ(waits.collectives[0].bytes, 8192.0 * 1024 * 2);
  EXPECT_NEAR(waits.exposed_collective_seconds, waits.collectives[0].seconds, 1e-8);
  EXPECT_EQ(program("100000000").exposed_collective_seconds, 0);
}

// As libtpu writes a gather that goes on beside a product: it stands in the fusion that starts it,
// in that of the product, and in the one that waits.
TEST(Schedule, AGatherThatAFusionCarriesOnCountsOnce) {
  const ScheduleCost cost = cost_of(R"(
%start_computation (p: bf16[512,4096]) -> (bf16[512,4096], bf16[2048,4096], u32[]) {
  %p = bf16[512,4096]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  %all-gather.1 = bf16[2048,4096]{1,0:T(8,128)(2,1)} all-gather(%p), channel_id=1, replica_groups={{0,1,2,3}}, dimensions={0}
  ROOT %custom-call.1 = (bf16[512,4096]{1,0:T(8,128)(2,1)S(1)}, bf16[2048,4096]{1,0:T(8,128)(2,1)}, u32[]{:S(2)}) custom-call(%all-gather.1), custom_call_target="AsyncCollectiveStart"
}

%async_collective_fusion (q: bf16[512,4096], r: bf16[2048,4096], s: u32[], x: f32[1024]) -> (f32[1024], bf16[512,4096], bf16[2048,4096], u32[]) {
  %q = bf16[512,4096]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  %r = bf16[2048,4096]{1,0:T(8,128)(2,1)} parameter(1)
  %s = u32[]{:S(2)} parameter(2)
  %x = f32[1024]{0:T(1024)S(1)} parameter(3)
  %all-gather.2 = bf16[2048,4096]{1,0:T(8,128)(2,1)} all-gather(%q), channel_id=1, replica_groups={{0,1,2,3}}, dimensions={0}
  %negate = f32[1024]{0:T(1024)S(1)} negate(%x)
  ROOT %tuple = (f32[1024]{0:T(1024)S(1)}, bf16[512,4096]{1,0:T(8,128)(2,1)S(1)}, bf16[2048,4096]{1,0:T(8,128)(2,1)}, u32[]{:S(2)}) tuple(%negate, %q, %r, %s)
}

%done_computation (t: bf16[512,4096], u: bf16[2048,4096], v: u32[]) -> bf16[2048,4096] {
  %t = bf16[512,4096]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  %u = bf16[2048,4096]{1,0:T(8,128)(2,1)} parameter(1)
  %v = u32[]{:S(2)} parameter(2)
  %all-gather.3 = bf16[2048,4096]{1,0:T(8,128)(2,1)} all-gather(%t), channel_id=1, replica_groups={{0,1,2,3}}, dimensions={0}
  ROOT %custom-call.2 = bf16[2048,4096]{1,0:T(8,128)(2,1)} custom-call(%t, %u, %all-gather.3, %v), custom_call_target="AsyncCollectiveDone"
}

ENTRY %main (a: bf16[512,4096], b: f32[1024]) -> bf16[2048,4096] {
  %a = bf16[512,4096]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  %b = f32[1024]{0:T(1024)S(1)} parameter(1)
  %async-collective-start = (bf16[512,4096]{1,0:T(8,128)(2,1)S(1)}, bf16[2048,4096]{1,0:T(8,128)(2,1)}, u32[]{:S(2)}) fusion(%a), kind=kCustom, output_to_operand_aliasing={{0}: (0, {})}, calls=%start_computation
  %fusion = (f32[1024]{0:T(1024)S(1)}, bf16[512,4096]{1,0:T(8,128)(2,1)S(1)}, bf16[2048,4096]{1,0:T(8,128)(2,1)}, u32[]{:S(2)}) fusion(%async-collective-start#0, %async-collective-start#1, %async-collective-start#2, %b), kind=kOutput, output_to_operand_aliasing={{1}: (0, {}), {2}: (1, {}), {3}: (2, {})}, calls=%async_collective_fusion, backend_config={"estimated_cycles":"15000"}
  ROOT %async-collective-done = bf16[2048,4096]{1,0:T(8,128)(2,1)} fusion(%fusion#1, %fusion#2, %fusion#3), kind=kCustom, output_to_operand_aliasing={{}: (1, {})}, calls=%done_computation
})");
  ASSERT_EQ(cost.collectives.size(), 1U);
  const CollectiveCost& gather = cost.collectives[0];
  const double bytes = 2048.0 * 4096 * 2;
  EXPECT_EQ(gather.count, 1);
  EXPECT_EQ(gather.sent_bytes, bytes * 3 / 4);
  EXPECT_NEAR(gather.exposed_seconds, gather.seconds - 15000 / 1.5e9, 1e-12);
  EXPECT_NEAR(cost.seconds, gather.seconds, 1e-12);
  EXPECT_EQ(cost.hbm_bytes, bytes);  // what came, written once
}

// As libtpu writes it; the rows are padded to 560 a device.
TEST(Schedule, AReduceScatterSendsHalfOfAnAllReduce) {
  const ScheduleCost cost = cost_of(R"(
%all-reduce-scatter (input: bf16[2048,4096]) -> bf16[560,4096] {
  %input = bf16[2048,4096]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  %zero = bf16[] constant(0)
  %pad = bf16[2240,4096]{1,0:T(8,128)(2,1)} pad(%input, %zero), padding=0_192x0_0
  %all-reduce = bf16[2240,4096]{1,0:T(8,128)(2,1)} all-reduce(%pad), replica_groups={{0,1,2,3}}, to_apply=%add
  %partition-id = u32[] partition-id()
  %rows = u32[] constant(560)
  %row = u32[] multiply(%partition-id, %rows)
  %column = u32[] constant(0)
  ROOT %dynamic-slice = bf16[560,4096]{1,0:T(8,128)(2,1)S(1)} dynamic-slice(%all-reduce, %row, %column), dynamic_slice_sizes={560,4096}
}

ENTRY %main (a: bf16[2048,4096]) -> bf16[560,4096] {
  %a = bf16[2048,4096]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  ROOT %fusion = bf16[560,4096]{1,0:T(8,128)(2,1)S(1)} fusion(%a), kind=kCustom, calls=%all-reduce-scatter
})");
  ASSERT_EQ(cost.collectives.size(), 1U);
  EXPECT_EQ(cost.collectives[0].opcode, "reduce-scatter");
  EXPECT_EQ(cost.collectives[0].bytes, 560.0 * 4096 * 2);
  EXPECT_EQ(cost.collectives[0].sent_bytes, 3 * 560.0 * 4096 * 2);
  EXPECT_GE(cost.seconds, cost.collectives[0].sent_bytes / 100e9);
}

// Two kernels that name one cache, as tpu-inference has them for prefill and decode.
TEST(Schedule, KernelsArePricedByTheirBytesAndTheCacheCountsOnce) {
  const ScheduleCost cost = cost_of(R"(
ENTRY %main (q: bf16[64,8,128], cache: bf16[1024,64,2,128]) -> (bf16[64,8,128], bf16[1024,64,2,128]) {
  %q = bf16[64,8,128]{2,1,0} parameter(0)
  %cache = bf16[1024,64,2,128]{3,2,1,0} parameter(1)
  %ragged.1 = (bf16[64,8,128]{2,1,0:S(1)}, bf16[1024,64,2,128]{3,2,1,0}) custom-call(%q, %cache), custom_call_target="tpu_custom_call", output_to_operand_aliasing={{1}: (1, {})}, backend_config={"custom_call_config":{"cost_estimate":{"flops":"1000000","bytes_accessed":"5"}}}
  %ragged.2 = (bf16[64,8,128]{2,1,0:S(1)}, bf16[1024,64,2,128]{3,2,1,0}) custom-call(%q, %ragged.1#1), custom_call_target="tpu_custom_call", output_to_operand_aliasing={{1}: (1, {})}, backend_config={"custom_call_config":{"cost_estimate":{"flops":"2000000"}}}
  ROOT %tuple = (bf16[64,8,128]{2,1,0:S(1)}, bf16[1024,64,2,128]{3,2,1,0}) tuple(%ragged.2#0, %ragged.2#1)
})");
  ASSERT_EQ(cost.kernels.size(), 1U);
  const KernelCost& kernel = cost.kernels[0];
  EXPECT_EQ(kernel.name, "ragged");
  EXPECT_EQ(kernel.count, 2);
  EXPECT_EQ(kernel.bytes, 1024.0 * 64 * 2 * 128 * 2 + 2 * 64.0 * 8 * 128 * 2);
  EXPECT_EQ(kernel.flops, 3e6);
  EXPECT_NEAR(cost.seconds, kernel.bytes / 819e9, 1e-12);
  EXPECT_EQ(cost.unpriced_count, 0);
}

TEST(Schedule, AKernelThatReadsAPartOfItsOperandsSaysSo) {
  const auto bytes = [](int64_t own) {
    return cost_of(fmt::format(R"(
ENTRY %main (x: bf16[8,128], w: bf16[64,128,128]) -> bf16[8,128] {{
  %x = bf16[8,128]{{1,0}} parameter(0)
  %w = bf16[64,128,128]{{2,1,0}} parameter(1)
  ROOT %experts.1 = bf16[8,128]{{1,0}} custom-call(%x, %w), custom_call_target="tpu_custom_call", backend_config={{"custom_call_config":{{"cost_estimate":{{"flops":"1000","bytes_accessed":"{}"}}}}}}
}})",
                               own))
        .kernels.at(0)
        .bytes;
  };
  const double all = 2.0 * (2 * 8 * 128 + 64 * 128 * 128);
  EXPECT_EQ(bytes(100000), 100000);
  EXPECT_EQ(bytes(10000000), all);
  EXPECT_EQ(bytes(0), all) << "it says nothing";
}

TEST(Schedule, ALoopTurnsAsOftenAsItCounts) {
  const ScheduleCost cost = cost_of(R"(
%body (c: (s32[], f32[128,128])) -> (s32[], f32[128,128]) {
  %c = (s32[], f32[128,128]{1,0:S(1)}) parameter(0)
  %i = s32[] get-tuple-element(%c), index=0
  %one = s32[] constant(1)
  %next = s32[]{:S(6)} add(%i, %one), backend_config={"estimated_cycles":"0"}
  %dot = f32[128,128]{1,0:S(1)} dot(%c#1, %c#1), lhs_contracting_dims={1}, rhs_contracting_dims={0}, backend_config={"estimated_cycles":"300"}
  ROOT %t = (s32[], f32[128,128]{1,0:S(1)}) tuple(%next, %dot)
}
%condition (d: (s32[], f32[128,128])) -> pred[] {
  %d = (s32[], f32[128,128]{1,0:S(1)}) parameter(0)
  %limit = s32[] constant(12)
  ROOT %less = pred[] compare(%d#0, %limit), direction=LT, backend_config={"estimated_cycles":"0"}
}
ENTRY %main (x: f32[128,128]) -> (s32[], f32[128,128]) {
  %x = f32[128,128]{1,0:S(1)} parameter(0)
  %zero = s32[] constant(0)
  %start = (s32[], f32[128,128]{1,0:S(1)}) tuple(%zero, %x)
  ROOT %while = (s32[], f32[128,128]{1,0:S(1)}) while(%start), condition=%condition, body=%body
})");
  EXPECT_EQ(cost.uncounted_loops, 0);
  EXPECT_EQ(cost.cycles, 12 * 300);
  EXPECT_EQ(cost.flops, 12 * 2.0 * 128 * 128 * 128);
  EXPECT_NEAR(cost.seconds, 12 * 300 / 1.5e9, 1e-12);
}

TEST(Schedule, WithoutCyclesAnOperatorTakesItsBytes) {
  const ScheduleCost cost = cost_of(R"(
%fused (cache: bf16[131072,512], rows: bf16[64,512]) -> bf16[131072,512] {
  %cache = bf16[131072,512]{1,0:T(8,128)(2,1)} parameter(0)
  %rows = bf16[64,512]{1,0:T(8,128)(2,1)} parameter(1)
  %at = s32[] constant(0)
  ROOT %put = bf16[131072,512]{1,0:T(8,128)(2,1)} dynamic-update-slice(%cache, %rows, %at, %at)
}
ENTRY %main (cache: bf16[131072,512], rows: bf16[64,512]) -> bf16[131072,512] {
  %cache = bf16[131072,512]{1,0:T(8,128)(2,1)} parameter(0)
  %rows = bf16[64,512]{1,0:T(8,128)(2,1)} parameter(1)
  ROOT %scatter_fusion = bf16[131072,512]{1,0:T(8,128)(2,1)} fusion(%cache, %rows), kind=kCustom, calls=%fused
})");
  // In place: the rows are read and written, the cache stands.
  EXPECT_EQ(cost.hbm_bytes, 2 * 64.0 * 512 * 2);
  EXPECT_EQ(cost.unpriced_count, 1);
  EXPECT_NEAR(cost.seconds, cost.hbm_bytes / 819e9, 1e-15);
}

// As XLA writes a configuration and attributes that are JSON; strings in them may hold brackets.
TEST(HloText, AnInstructionMayHaveLineBreaksInItsAttributes) {
  const ScheduleCost cost = cost_of(R"(
ENTRY %main (a: bf16[8,128]) -> bf16[8,128] {
  %a = bf16[8,128]{1,0} parameter(0)
  %RPAd.1 = bf16[8,128]{1,0} custom-call(%a), custom_call_target="tpu_custom_call", frontend_attributes={kernel_metadata={
  "note": "a } and a \" and {",
  "blocks": [1,
    2]
}}, backend_config={"custom_call_config":{"cost_estimate":{
"flops":1000000,
"bytes_accessed":5}}}
  ROOT %negate = bf16[8,128]{1,0} negate(%RPAd.1), backend_config={"estimated_cycles":"300"}
}
)");
  ASSERT_EQ(cost.kernels.size(), 1U);
  EXPECT_EQ(cost.kernels[0].name, "RPAd");
  EXPECT_EQ(cost.kernels[0].flops, 1e6);
  EXPECT_EQ(cost.cycles, 300);
}

TEST(HloText, PaddingIsCounted) {
  const HloModule module = parse_hlo_text(R"(
ENTRY %main (a: bf16[3,100]) -> bf16[3,100] {
  ROOT %a = bf16[3,100]{1,0:T(8,128)(2,1)} parameter(0)
})");
  const HloComputation* entry = module.find(module.entry);
  const HloShape& shape = entry->find(entry->root)->shape;
  EXPECT_EQ(shape.bytes(), 3 * 100 * 2);
  EXPECT_EQ(shape.padded_bytes(), 8 * 128 * 2);
}

// A batched product as a convolution: most of the window meets padding.
TEST(HloText, PositionsThatMeetPaddingAreNoWork) {
  const HloModule module = parse_hlo_text(R"(
ENTRY %main (a: f32[8,16,32], b: f32[8,32,64]) -> f32[8,16,64] {
  %a = f32[8,16,32]{2,1,0} parameter(0)
  %b = f32[8,32,64]{2,1,0} parameter(1)
  ROOT %convolution = f32[8,16,64]{2,1,0} convolution(%a, %b), window={size=8 stride=7 pad=0_0 lhs_dilate=8}, dim_labels=0bf_0io->0bf
})");
  const HloComputation* entry = module.find(module.entry);
  EXPECT_EQ(contraction_flops(*entry, *entry->find(entry->root)), 2.0 * 8 * 16 * 32 * 64);
}

TEST(HloText, ALineThatCannotBeReadIsNamed) {
  for (const char* wrong : {"ENTRY %main () -> f32[] {\n  %a = \n}", "", "HloModule m\n",
                            "ENTRY %main () -> f32[] {\n  %a = q7[] constant(1)\n}",
                            "ENTRY %main () -> f32[] {\n  %a = f32[2 constant(1)\n}"}) {
    try {
      parse_hlo_text(wrong);
      FAIL() << wrong;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kDataLoss);
    }
  }
  try {
    parse_hlo_text("ENTRY %m () -> f32[] {\n  %a = f32[] constant(1), x={\"k\": [\n\n1]}\n  %b\n}");
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("line 5 "), std::string::npos) << error.what();
  }
}

TEST(HloText, GroupsAreReadHoweverTheyAreWritten) {
  const auto groups = [](const std::string& text) {
    const HloModule module = parse_hlo_text(
        "ENTRY %m (a: f32[8]) -> f32[8] {\n  %a = f32[8]{0} parameter(0)\n  ROOT %r = f32[8]{0} "
        "all-to-all(%a), replica_groups=" +
        text + ", dimensions={0}\n}");
    const HloComputation* entry = module.find(module.entry);
    return entry->find(entry->root)->groups;
  };
  EXPECT_EQ(groups("{}"), DeviceGroups{});
  EXPECT_EQ(groups("{{0,2},{1,3}}"), (DeviceGroups{{0, 2}, {1, 3}}));
  EXPECT_EQ(groups("[2,4]<=[8]"), (DeviceGroups{{0, 1, 2, 3}, {4, 5, 6, 7}}));
  EXPECT_EQ(groups("[4,2]<=[2,4]T(1,0)"), (DeviceGroups{{0, 4}, {1, 5}, {2, 6}, {3, 7}}));
  EXPECT_EQ(groups("mesh['x'=2,'y_1'=3] {'x'}"), (DeviceGroups{{0, 3}, {1, 4}, {2, 5}}));
  EXPECT_EQ(groups("mesh['x'=2,'y_1'=2] {'y_1','x'}"), (DeviceGroups{{0, 2, 1, 3}}));
  EXPECT_THROW(groups("[2,4]<=[7]"), Error);
  EXPECT_THROW(groups("[2,4]<=[2,4]T(1,1)"), Error);
}

}  // namespace
}  // namespace ttpu::plan
