// Plans for training by formulas, and with a compiler that says what the test wants.
#include "ttpu/plan/training.h"

#include <set>

#include <gtest/gtest.h>

#include "tests/support/error_of.h"
#include "ttpu/models/registry.h"

namespace ttpu::plan {
namespace {

ModelFacts facts(const std::string& name) {
  return facts_of(models::decoder_from_config(
      read_json(std::string(TTPU_SOURCE_DIR) + "/tests/fixtures/configs/" + name + ".json")));
}

TrainRequest request_for(const std::string& topology) {
  TrainRequest request;
  request.model = "model";
  request.topology = topology;
  return request;
}

TrainCandidate mesh_of(const std::string& slice, int64_t data, int64_t fsdp, int64_t tensor,
                       int64_t stage) {
  return {parse_slice(slice), data, fsdp, tensor, stage};
}

std::string error_of(const std::string& model, const TrainRequest& request, Code code) {
  return ttpu::error_of([&] { make_train_plan(facts(model), request, {}); }, code);
}

void expect_in(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << part << " is not in: " << text;
}

constexpr double kLlama = 8.030e9;  // parameters
const TrainWorkload kWork = {4096, 64};

TEST(TrainCost, StagesDivideWhatTheyAreNamedFor) {
  const ModelFacts llama = facts("llama-3-8b");
  const auto cost = [&](int64_t data, int64_t fsdp, int64_t stage) {
    return train_cost(llama, kWork, mesh_of("v5p:2x2x2", data, fsdp, 1, stage));
  };
  const TrainCost zero = cost(8, 1, 0);
  EXPECT_NEAR(zero.weight_bytes, 4 * kLlama, kLlama * 1e-3);
  EXPECT_NEAR(zero.optimizer_bytes, 8 * kLlama, kLlama * 1e-3);
  EXPECT_NEAR(zero.copy_bytes, 2 * kLlama, kLlama * 1e-3);
  const double vocab = 128256.0 * 4096;  // the head's own sum of a micro-batch besides
  EXPECT_NEAR(zero.gradient_bytes, 4 * (kLlama + vocab), kLlama * 1e-3);
  const TrainCost one = cost(1, 8, 1);
  EXPECT_EQ(one.weight_bytes, zero.weight_bytes / 8);
  EXPECT_EQ(one.optimizer_bytes, zero.optimizer_bytes / 8);
  EXPECT_EQ(one.copy_bytes, zero.copy_bytes);
  EXPECT_EQ(one.gradient_bytes, zero.gradient_bytes);
  const TrainCost two = cost(1, 8, 2);
  EXPECT_EQ(two.copy_bytes, zero.copy_bytes);
  EXPECT_LT(two.gradient_bytes, zero.gradient_bytes / 4);
  EXPECT_GE(two.gradient_bytes, zero.gradient_bytes / 8);
  const TrainCost three = cost(1, 8, 3);
  EXPECT_EQ(three.gradient_bytes, two.gradient_bytes);
  // Two of 32 layers, and the head.
  EXPECT_NEAR(three.copy_bytes, 2 * (2 * (kLlama - 2 * vocab) / 32 + vocab), kLlama * 1e-3);
  // Half of the replicas divide half as far.
  EXPECT_EQ(cost(2, 4, 3).optimizer_bytes, zero.optimizer_bytes / 4);
}

TEST(TrainCost, CollectivesAreThoseOfTheStage) {
  const ModelFacts llama = facts("llama-3-8b");
  const auto sent = [&](int64_t data, int64_t fsdp, int64_t stage, int64_t micro) {
    TrainCandidate one = mesh_of("v5p:2x2x2", data, fsdp, 1, stage);
    one.micro_batch = micro;
    return train_cost(llama, kWork, one).sent_bytes / (7.0 / 8 * kLlama);  // bytes a parameter
  };
  EXPECT_NEAR(sent(8, 1, 0, 1), 8, 0.01);          // an all-reduce of gradients in f32
  EXPECT_NEAR(sent(1, 8, 1, 1), 2 + 4, 0.01);      // a gather of bf16 and a scatter of f32
  EXPECT_NEAR(sent(1, 8, 2, 1), 2 + 8 * 2, 0.01);  // a scatter of bf16 in each of 8 micro-batches
  EXPECT_NEAR(sent(1, 8, 3, 1), 8 * 6, 0.01);      // two gathers and a scatter in each
  EXPECT_NEAR(sent(1, 8, 3, 8), 6, 0.01);
}

TEST(TrainCost, WhatIsKeptIsNotComputedAgain) {
  const ModelFacts llama = facts("llama-3-8b");
  const auto cost = [&](const std::string& remat) {
    TrainCandidate one = mesh_of("v5p:2x2x2", 1, 8, 1, 3);
    one.remat = remat;
    return train_cost(llama, kWork, one);
  };
  const TrainCost full = cost("full");
  const TrainCost minimal = cost("minimal");
  const TrainCost none = cost("none");
  EXPECT_EQ(full.activation_bytes, 32 * 4096.0 * 4096 * 2);  // layers, tokens, hidden, bytes
  EXPECT_GT(minimal.activation_bytes, 5 * full.activation_bytes);
  EXPECT_GT(none.activation_bytes, minimal.activation_bytes);
  EXPECT_GT(full.time.compute, minimal.time.compute);
  EXPECT_EQ(minimal.time.compute, none.time.compute);  // but HBM moves less
  EXPECT_LE(none.time.hbm, full.time.hbm);
  EXPECT_EQ(full.model_flops, none.model_flops);
  // 6 flops a parameter that a token is multiplied with, and of attention 12 for a number of a
  // query and a position that it sees, half of the sequence.
  const double seen = 4097.0 / 2;
  EXPECT_NEAR(none.model_flops,
              64 * 4096.0 * (6 * (kLlama - 128256.0 * 4096) + 32 * 12 * 4096.0 * seen),
              1e-3 * none.model_flops);
  // Eight instead of six flops for what is in layers, and attention's forward pass.
  const double again = 64 * 4096 * (2 * (kLlama - 2 * 128256.0 * 4096) + 32 * 4 * 4096.0 * seen);
  EXPECT_NEAR((full.time.compute - minimal.time.compute) * 8 * 459e12, again, 1e-3 * again);
}

TEST(TrainCost, DevicesThatShareALayerDivideActivationsByTokens) {
  const ModelFacts llama = facts("llama-3-8b");
  const auto cost = [&](int64_t tensor, const std::string& strategy) {
    TrainCandidate one = mesh_of("v5p:2x2x2", 1, 8 / tensor, tensor, 8 / tensor > 1 ? 3 : 0);
    one.strategy = strategy;
    return train_cost(llama, kWork, one);
  };
  const TrainCost whole = cost(1, "sequence");
  const TrainCost sequence = cost(4, "sequence");
  const TrainCost tensor = cost(4, "tensor");
  EXPECT_EQ(sequence.activation_bytes, whole.activation_bytes / 4);
  EXPECT_EQ(tensor.activation_bytes, whole.activation_bytes);
  EXPECT_GT(tensor.exposed, sequence.exposed);  // waits for sums instead of passing them around
}

TEST(TrainCost, AWindowAndALatentAreCountedAsTheyTrain) {
  const TrainCandidate one = mesh_of("v5p:4x4x8", 1, 128, 1, 3);
  const TrainWorkload work = {8192, 128};
  const ModelFacts gemma = facts("gemma-2-9b");  // 4,096 on every second layer
  const double layer = 12 * 16.0 * 256 * 8192 * 128;
  const double both = 21 * layer * (8193.0 / 2 + 4096 - 4096 * 4095 / 16384.0);
  EXPECT_NEAR(train_cost(gemma, work, one).model_flops,
              6 * gemma.active_params() * 8192 * 128 + both, 1e-6 * both);
  // Keys of 192, values of 128 for each of 128 heads, not the latent of 576.
  const ModelFacts deepseek = facts("deepseek-v3");
  const double heads = 61 * 6 * 128.0 * (192 + 128) * 8193 / 2 * 8192 * 128;
  EXPECT_NEAR(train_cost(deepseek, work, one).model_flops,
              6 * deepseek.active_params() * 8192 * 128 + heads, 1e-6 * heads);
}

TEST(TrainPlan, EveryMeshAndStageOfASliceIsLookedAt) {
  const TrainPlan plan = make_train_plan(facts("llama-3-8b"), request_for("v6e:2x4"), {});
  std::set<std::string> meshes;
  for (const TrainRow& row : plan.rows) {
    const TrainCandidate& one = row.candidate;
    EXPECT_EQ(one.data * one.fsdp * one.tensor, 8);
    EXPECT_EQ(one.zero_stage == 0, one.fsdp == 1);
    EXPECT_EQ(one.micro_batch * one.accumulation(row.work) * one.replicas(), 64);
    meshes.insert(fmt::format("{} {}", one.mesh(), one.zero_stage));
  }
  EXPECT_EQ(meshes, (std::set<std::string>{"data=8 0", "data=4, tensor=2 0", "data=2, tensor=4 0",
                                           "tensor=8 0", "fsdp=8 1", "fsdp=8 2", "fsdp=8 3",
                                           "fsdp=4, tensor=2 1", "fsdp=4, tensor=2 2",
                                           "fsdp=4, tensor=2 3", "fsdp=2, tensor=4 1",
                                           "fsdp=2, tensor=4 2", "fsdp=2, tensor=4 3"}));
  EXPECT_TRUE(plan.rows.front().fits());
  EXPECT_FALSE(plan.rows.back().fits());
  EXPECT_GT(plan.rows.front().mfu, 0.5);
  EXPECT_LT(plan.rows.front().mfu, 1);
  EXPECT_GE(plan.explanation.size(), 5U);
  // A group within the replicas where there are many of them, or where it is asked for.
  const auto hybrid = [](const TrainRequest& request) {
    const auto found = train_meshes(facts("llama-3-8b"), request, parse_slice(request.topology));
    return std::any_of(found.begin(), found.end(),
                       [](const auto& one) { return one.data > 1 && one.fsdp > 1; });
  };
  TrainRequest request = request_for("v6e:2x4");
  EXPECT_FALSE(hybrid(request));
  request.data = 2;
  EXPECT_TRUE(hybrid(request));
  EXPECT_TRUE(hybrid(request_for("v6e:8x8")));
}

TEST(TrainPlan, OnlyWhatIsAskedForIsLeft) {
  TrainRequest request = request_for("v6e:2x4");
  request.tensor = 2;
  request.zero_stage = 3;
  request.remat = "full";
  request.strategy = "sequence";
  request.micro_batch = 2;
  request.work.train_batch_size = 32;
  const TrainPlan plan = make_train_plan(facts("llama-3-8b"), request, {});
  ASSERT_EQ(plan.rows.size(), 1U);
  EXPECT_EQ(plan.rows[0].candidate.words(),
            "v6e:2x4 with fsdp=4, tensor=2 (sequence), ZeRO-3, remat full, micro-batch 2");
  EXPECT_EQ(plan.rows[0].candidate.accumulation(plan.rows[0].work), 4);
}

TEST(TrainPlan, ABatchThatNobodyGaveGivesEachDeviceASequence) {
  const TrainWorkload work;
  EXPECT_EQ(work.on_slice(parse_slice("v6e:2x4")).train_batch_size, 64);  // 262,144 tokens
  EXPECT_EQ(work.on_slice(parse_slice("v6e:16x16")).train_batch_size, 256);
  const Slice six{"six chips", chip_of_topology("v6e"), {2, 3}};
  EXPECT_EQ(work.on_slice(six).train_batch_size, 66);
  EXPECT_EQ(kWork.on_slice(parse_slice("v6e:16x16")).train_batch_size, 64);
}

TEST(TrainPlan, TheFewestChipsWinWithoutPricesAndTheCheapestTokenWithThem) {
  TrainRequest request = request_for("v6e:auto");
  const TrainPlan plan = make_train_plan(facts("llama-3-8b"), request, {});
  EXPECT_EQ(plan.rows.front().candidate.slice.name, "v6e:2x4");
  request.topology = "auto";
  const auto best = [&](const char* prices) {
    request.price_per_chip_hour = parse_prices(prices);
    const TrainPlan priced = make_train_plan(facts("llama-3-8b"), request, {});
    const TrainRow& first = priced.rows.front();
    for (const TrainRow& row : priced.rows) {
      EXPECT_TRUE(!row.fits() || *first.price_per_million <= *row.price_per_million);
    }
    return first.candidate.slice.chip.name;
  };
  EXPECT_EQ(best("v5e=1,v6e=100"), "v5e");
  EXPECT_EQ(best("v5e=100,v6e=1"), "v6e");
  request.topology = "v6e:auto";
  request.price_per_chip_hour = parse_prices("v5e=1");
  expect_in(error_of("llama-3-8b", request, Code::kInvalidArgument), "--price-per-chip-hour");
}

TEST(TrainPlan, ExpertsAndLatentsArePlannedByFormulas) {
  for (const char* name : {"mixtral-8x7b", "qwen3-30b-a3b", "deepseek-v3", "gpt-oss-20b"}) {
    const TrainPlan plan = make_train_plan(facts(name), request_for("auto"), {});
    EXPECT_TRUE(plan.rows.front().fits()) << name;
    EXPECT_GT(plan.rows.front().tokens_per_second, 0) << name;
  }
}

TEST(TrainPlan, WhatDoesNotFitSaysWhatWould) {
  TrainRequest request = request_for("v6e:2x4");
  const std::string error = error_of("llama-3.1-70b", request, Code::kResourceExhausted);
  for (const char* part : {"GiB are missing", "What would do: ", "v6e:8x8", "moments"}) {
    expect_in(error, part);
  }
  // All replicas with all of the state: 18 bytes a parameter.
  request.zero_stage = 0;
  request.data = 8;
  expect_in(error_of("llama-3-8b", request, Code::kResourceExhausted),
            "would fit, without the flags");
  TrainRequest longer = request_for("v6e:2x4");
  longer.work.seq_len = 131072;
  longer.work.train_batch_size = 8;
  expect_in(error_of("llama-3.1-70b", longer, Code::kResourceExhausted), "no sequences are short");
  longer.topology = "v6e:1x1";
  longer.work.train_batch_size = 1;
  expect_in(error_of("llama-3.2-1b", longer, Code::kResourceExhausted), "with --seq-len ");
}

TEST(TrainPlan, ImpossibleWishesAreRefusedWithWhatIsPossible) {
  const auto refused = [](const std::function<void(TrainRequest&)>& change,
                          const std::string& phrase, const std::string& model = "llama-3-8b") {
    TrainRequest request = request_for("v6e:2x4");
    change(request);
    expect_in(error_of(model, request, Code::kInvalidArgument), phrase);
  };
  refused([](auto& r) { r.topology = "v9:2x2"; }, "v4, v5e, v5p, v6e, tpu7x");
  refused([](auto& r) { r.work.seq_len = 9000; }, "the model allows 8192");
  refused([](auto& r) { r.work.seq_len = 0; }, "give 1 or more");
  refused([](auto& r) { r.work.train_batch_size = -1; }, "--train-batch-size is -1");
  refused([](auto& r) { r.tensor = 3; }, "8 devices");
  refused([](auto& r) { r.topology = "v6e:8x8", r.tensor = 64; }, "1, 2, 4, 8, 16, 32");
  refused([](auto& r) { r.zero_stage = 2, r.fsdp = 1; }, "--zero-stage 0");
  refused([](auto& r) { r.zero_stage = 0, r.fsdp = 8; }, "1, 2 or 3");
  refused([](auto& r) { r.zero_stage = 3, r.tensor = 8; }, "a smaller --tensor-parallel-size");
  refused([](auto& r) { r.zero_stage = 3, r.topology = "v6e:1x1"; }, "take a larger slice");
  refused([](auto& r) { r.fsdp = 3; }, "v6e:2x4 has 8");
  refused([](auto& r) { r.fsdp = 2, r.data = 2, r.tensor = 4; }, "come to 16 devices");
  refused([](auto& r) { r.fsdp = 1, r.data = 1; }, "data=8; fsdp=8", "smollm2-135m");
  refused([](auto& r) { r.work.train_batch_size = 6, r.fsdp = 8; }, "that 8 divides, such as 8");
  refused([](auto& r) { r.micro_batch = 3; }, "that 3 divides, such as 66");
  refused([](auto& r) { r.work = {1001, 1}, r.tensor = 8; }, "--seq-len that these divide");
}

ProgramReport report_of(double seconds, double gib) {
  ProgramReport report;
  report.phase = "train";
  report.weight_bytes = int64_t{3} << 30;
  report.optimizer_bytes = int64_t{6} << 30;
  report.temporary_bytes = static_cast<int64_t>(gib * (1 << 30));
  report.code_bytes = 1 << 20;
  report.schedule.seconds = seconds;
  report.schedule.compute_limit = report.schedule.limit_seconds = seconds / 2;
  report.schedule.exposed_collective_seconds = seconds / 4;
  report.schedule.bound = "compute";
  report.schedule.collectives = {{"all-gather", 8, 2, 100, 150, 1e-5, 5e-6}};
  return report;
}

TEST(TrainPlan, WhatTheCompilerSaysDecides) {
  std::vector<TrainCandidate> compiled;
  TrainRequest request = request_for("v6e:2x4");
  request.price_per_chip_hour = {{"", 1.0}};
  const auto compile = [&](const TrainCandidate& candidate, const TrainWorkload& work) {
    EXPECT_EQ(work.train_batch_size, 64);
    compiled.push_back(candidate);
    return report_of(candidate.tensor == 1 ? 2 : 4, 10);
  };
  const TrainPlan plan = make_train_plan(facts("llama-3-8b"), request, compile);
  ASSERT_EQ(compiled.size(), 3U);
  std::set<std::string> shared;  // how layers are shared differs in all of them
  for (const TrainCandidate& one : compiled) {
    shared.insert(fmt::format("{} {}", one.tensor, one.strategy));
  }
  EXPECT_EQ(shared.size(), 3U);
  const TrainRow& first = plan.rows.front();
  ASSERT_TRUE(first.compiled());
  EXPECT_EQ(first.candidate.tensor, 1);  // that took least
  EXPECT_EQ(first.seconds, 2);
  EXPECT_EQ(first.tokens_per_second, 64 * 4096 / 2.0);
  EXPECT_NEAR(first.mfu, first.cost.model_flops / (2 * 8 * 918e12), 1e-12);
  EXPECT_NEAR(*first.price_per_million, 8.0 / 3600 / first.tokens_per_second * 1e6, 1e-9);
  EXPECT_EQ(first.optimizer_bytes, 6.0 * (1 << 30));
  const Json json = to_json(plan, request);
  EXPECT_EQ(json["candidates"][0]["compiled"], true);
  EXPECT_EQ(json["candidates"][0]["optimizer_bytes"], 6.0 * (1 << 30));
  EXPECT_EQ(json["candidates"][0]["step"]["phase"], "train");
  const std::string table = to_table(plan, request);
  for (const char* part : {"is best", "compute limits its step", "2 all-gather over 8 devices",
                           "25% of it waits for collectives", "of temporaries (by the formulas"}) {
    expect_in(table, part);
  }
}

TEST(TrainPlan, WhereTheCompilerFindsItTooLargeASmallerOneOfTheMeshIsNext) {
  TrainRequest request = request_for("v6e:2x4");
  request.tensor = 1;
  request.zero_stage = 3;
  for (const bool told : {true, false}) {
    std::vector<TrainCandidate> compiled;
    const auto compile = [&](const TrainCandidate& candidate, const TrainWorkload&) {
      compiled.push_back(candidate);
      if (compiled.size() == 1 && told) return report_of(2, 30);
      if (compiled.size() == 1) fail(Code::kResourceExhausted, "ran out of memory");
      return report_of(3, 10);
    };
    const TrainPlan plan = make_train_plan(facts("llama-3.2-1b"), request, compile);
    ASSERT_EQ(compiled.size(), 2U);
    EXPECT_EQ(compiled[0].mesh(), compiled[1].mesh());
    EXPECT_NE(compiled[0].words(), compiled[1].words());
    EXPECT_EQ(plan.rows.front().candidate.words(), compiled[1].words());
    EXPECT_EQ(plan.rows.front().seconds, 3);
    EXPECT_FALSE(plan.rows.back().fits());
    expect_in(to_table(plan, request), told ? "are missing on each device" : "says the compiler");
  }
}

TEST(TrainPlan, ACompilationThatFailsIsReportedAndThePlanGoesOn) {
  const auto compile = [](const TrainCandidate& candidate, const TrainWorkload&) {
    if (candidate.tensor == 2) fail(Code::kUnimplemented, "no training of this yet");
    return report_of(2, 10);
  };
  const TrainRequest request = request_for("v6e:2x4");
  const TrainPlan plan = make_train_plan(facts("llama-3-8b"), request, compile);
  EXPECT_TRUE(plan.rows.front().compiled());
  expect_in(to_table(plan, request), "no training of this yet");
  const auto never = [](const TrainCandidate&, const TrainWorkload&) -> ProgramReport {
    fail(Code::kDeadlineExceeded, "took too long");
  };
  const TrainPlan formulas = make_train_plan(facts("llama-3-8b"), request, never);
  EXPECT_FALSE(formulas.rows.front().compiled());
  EXPECT_TRUE(formulas.rows.front().fits());
}

}  // namespace
}  // namespace ttpu::plan
