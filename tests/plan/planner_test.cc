// Plans by formulas, and with a compiler that says what the test wants.
#include "ttpu/plan/planner.h"

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

PlanRequest request_for(const std::string& topology) {
  PlanRequest request;
  request.model = "model";
  request.topology = topology;
  return request;
}

std::string error_of(const std::string& model, const PlanRequest& request, Code code) {
  return ttpu::error_of([&] { make_plan(facts(model), request, {}); }, code);
}

// The published counts, in billions (tests/fixtures/configs/README.md).
TEST(ModelFacts, ParametersAreThePublishedNumbers) {
  const std::pair<const char*, double> kPublished[] = {
      {"llama-3-8b", 8.030},    {"llama-3.1-70b", 70.554}, {"qwen3-32b", 32.762},
      {"mixtral-8x7b", 46.703}, {"qwen3-30b-a3b", 30.532}, {"deepseek-v3", 671.026},
      {"gemma-2-9b", 9.242},    {"gpt2", 0.1244},          {"phi-3-mini-4k", 3.821}};
  for (const auto& [name, billions] : kPublished) {
    EXPECT_NEAR(facts(name).params() / 1e9, billions, billions * 1e-3) << name;
  }
}

TEST(ModelFacts, AnExpertModelIsMultipliedWithAPartOfItself) {
  const ModelFacts mixtral = facts("mixtral-8x7b");
  EXPECT_NEAR(mixtral.active_params() / 1e9, 12.8, 0.2);
  EXPECT_NEAR(mixtral.reached_experts(1), 0.25, 1e-9);
  EXPECT_GT(mixtral.reached_experts(64), 0.99);
}

TEST(Analytic, QuantizedLayersTakeTheirOwnBytesAndTheOthersBf16) {
  const ModelFacts llama = facts("llama-3-8b");
  const Slice slice = parse_slice("v5e:2x2");
  Workload work;
  const Analytic plain = analyse(llama, work, {slice, 4, 1, "tensor"});
  const double rest = (2 * 128256.0 * 4096 / 4 + 65 * 4096) * 2;  // embedding, head and norms
  work.quantization = parse_quantization("int8");
  const Analytic int8 = analyse(llama, work, {slice, 4, 1, "tensor"});
  EXPECT_NEAR(int8.weight_bytes, rest + (plain.weight_bytes - rest) / 2, 1);
  EXPECT_NEAR(int8.decode.hbm, plain.decode.hbm - (plain.weight_bytes - rest) / 2 / 819e9, 1e-6);
  EXPECT_LT(int8.prefill.compute, 0.6 * plain.prefill.compute);
  EXPECT_EQ(int8.cache_bytes, plain.cache_bytes);
  work.quantization = parse_quantization("int4");
  const Analytic int4 = analyse(llama, work, {slice, 4, 1, "tensor"});
  EXPECT_NEAR(int4.weight_bytes, rest + (plain.weight_bytes - rest) / 2 * (0.5 + 2.0 / 128), 1);
  EXPECT_EQ(int4.prefill.compute, plain.prefill.compute);  // widened beside the product
}

TEST(Analytic, ExpertsAloneAreOfMxfp4) {
  const ModelFacts gpt_oss = facts("gpt-oss-20b");
  const Candidate one{parse_slice("v6e:1x1"), 1, 1, "tensor"};
  Workload work;
  const double plain = analyse(gpt_oss, work, one).weight_bytes;
  work.quantization = {DType::kF4E2M1FN, 32, false, false, DType::kBF16};
  const double experts = 24 * 32 * 3 * 2880.0 * 2880;
  EXPECT_NEAR(analyse(gpt_oss, work, one).weight_bytes, plain - experts * (2 - 0.5 - 2.0 / 32), 1);
}

TEST(Analytic, WeightsAndCacheAreDividedAsTheyCanBe) {
  const ModelFacts llama = facts("llama-3-8b");
  const Slice slice = parse_slice("v5e:4x4");
  Workload work;
  work.batch = 16;
  const auto cache = [&](int64_t tensor, const std::string& strategy) {
    return analyse(llama, work, {slice, tensor, 16 / tensor, strategy}).cache_bytes /
           static_cast<double>(Candidate{slice, tensor, 16 / tensor, strategy}.batch_of(work));
  };
  const double token = 32 * 2 * 8 * 128 * 2;  // layers, keys and values, heads, width, bytes
  EXPECT_EQ(cache(1, "tensor"), token * 1280);
  EXPECT_EQ(cache(8, "tensor"), token * 1280 / 8);
  EXPECT_EQ(cache(16, "tensor"), token * 1280 / 8);    // 8 KV heads
  EXPECT_EQ(cache(16, "context"), token * 1280 / 16);  // and positions
  const Analytic four = analyse(llama, work, {slice, 4, 4, "tensor"});
  EXPECT_NEAR(four.weight_bytes, 8.030e9 * 2 / 4, 8.030e9 * 2 / 4 * 1e-3);
}

TEST(Analytic, TheCacheTakesTheBytesOfItsType) {
  const ModelFacts llama = facts("llama-3-8b");
  const Slice slice = parse_slice("v5e:2x2");
  Workload work;
  const auto with = [&](std::optional<DType> cache) {
    work.cache_dtype = cache;
    return analyse(llama, work, {slice, 4, 1, "tensor"});
  };
  const Analytic bf16 = with({});
  EXPECT_EQ(with(DType::kBF16).cache_bytes, bf16.cache_bytes);
  EXPECT_EQ(with(DType::kF8E4M3FN).cache_bytes, bf16.cache_bytes / 2);
  // An f32 for each head's 128 bytes.
  EXPECT_EQ(with(DType::kS8).cache_bytes, bf16.cache_bytes / 2 * 132 / 128);
  EXPECT_EQ(with(DType::kS8).cache_token_bytes, bf16.cache_token_bytes / 2 * 132 / 128);
  EXPECT_NEAR(bf16.decode.hbm - with(DType::kF8E4M3FN).decode.hbm, bf16.cache_bytes / 2 / 819e9,
              1e-9);
  EXPECT_EQ(with(DType::kS8).weight_bytes, bf16.weight_bytes);
}

TEST(Analytic, ASlidingWindowHoldsTheCacheSmall) {
  Workload work;
  work.input_len = 8000;
  const Candidate one{parse_slice("v5e:1x1"), 1, 1, "tensor"};
  const ModelFacts gemma = facts("gemma-2-9b");  // 4,096 on every second layer
  const Analytic cost = analyse(gemma, work, one);
  const double whole = 64.0 * 42 * 2 * 8 * 256 * 8256 * 2;
  EXPECT_NEAR(cost.cache_bytes, whole * (0.5 + 0.5 * 4096 / 8256), whole * 1e-6);
}

TEST(Analytic, UlyssesSendsLessInAPrefillAndTakesMoreMemory) {
  const ModelFacts llama = facts("llama-3-8b");
  const Slice slice = parse_slice("v6e:2x2");
  Workload work;
  work.input_len = 2048;
  const Analytic sequence = analyse(llama, work, {slice, 4, 1, "sequence"});
  const Analytic ulysses = analyse(llama, work, {slice, 4, 1, "ulysses"});
  const double projections = 32 * 4096.0 * (2 * 4096 + 2 * 1024) * 2;
  EXPECT_NEAR(ulysses.weight_bytes - sequence.weight_bytes, 0.75 * projections, 1);
  // In the place of a gather and a scatter of all tokens: own tokens for own heads, and back.
  const double states = 2048.0 * 4096 * 2;
  const double heads = 2048.0 / 4 * (2 * 4096 + 2 * 1024) * 2;
  EXPECT_NEAR(sequence.prefill_all_reduce_bytes - ulysses.prefill_all_reduce_bytes,
              32 * 0.75 * (2 * states - heads), 1);
  EXPECT_EQ(ulysses.decode.hbm, sequence.decode.hbm);
  EXPECT_EQ(ulysses.decode_all_reduce_bytes, sequence.decode_all_reduce_bytes);
}

TEST(Analytic, StagesDivideTheMemoryAndNotTheTimeOfAStep) {
  const ModelFacts llama = facts("llama-3-8b");
  const Slice slice = parse_slice("v5e:2x2");
  Workload work;
  work.batch = 16;
  work.input_len = 2048;
  const Analytic tensor = analyse(llama, work, {slice, 4, 1, "tensor"});
  const Analytic one = analyse(llama, work, {parse_slice("v5e:1x1"), 1, 1, "tensor"});
  const Candidate four{slice, 1, 1, "tensor", 4};
  const Analytic pipe = analyse(llama, work, four);
  EXPECT_NEAR(pipe.weight_bytes, tensor.weight_bytes, 1e-3 * tensor.weight_bytes);
  EXPECT_EQ(pipe.cache_bytes, tensor.cache_bytes);
  // One microbatch in four rounds, each through a quarter of the layers: the weights of all layers
  // are read by each device, the caches and the head by one.
  EXPECT_EQ(four.microbatches(16), 1);
  const double head = 128256.0 * 4096 * 2 / 819e9;
  const double cache = one.cache_bytes / 819e9;
  EXPECT_NEAR(pipe.decode.hbm, one.decode.hbm - 0.75 * (head + cache), 1e-5);
  // Four microbatches of 512 tokens in seven rounds.
  EXPECT_EQ(four.microbatches(2048), 4);
  EXPECT_NEAR(pipe.prefill.compute, one.prefill.compute * 7 / 16, 0.02 * one.prefill.compute);
  EXPECT_EQ(four.microbatches(1022), 1);
  // What it sends: states to the next stage in each round, and the embedding's sum.
  const double states = 2048.0 * 4096 * 2;
  EXPECT_NEAR(pipe.prefill_all_reduce_bytes, 7 * states / 4 + 1.5 * states, 1);
}

TEST(Plan, EveryMeshOfASliceIsLookedAt) {
  const Plan plan = make_plan(facts("llama-3-8b"), request_for("v5e:2x4"), {});
  std::set<std::string> meshes;
  std::set<std::string> strategies;
  for (const Row& row : plan.rows) {
    meshes.insert(row.candidate.mesh());
    strategies.insert(row.candidate.strategy);
  }
  EXPECT_EQ(meshes,
            (std::set<std::string>{"data=2, pipe=2, tensor=2", "data=2, pipe=4", "data=2, tensor=4",
                                   "data=4, pipe=2", "data=4, tensor=2", "data=8",
                                   "pipe=2, tensor=4", "pipe=4, tensor=2", "pipe=8", "tensor=8"}));
  EXPECT_EQ(strategies, (std::set<std::string>{"sequence", "tensor", "ulysses"}));  // one device
  EXPECT_TRUE(plan.rows.front().fits());
  EXPECT_FALSE(plan.rows.back().fits());  // 16 GB of weights on one device of 16 GiB
  EXPECT_GE(plan.explanation.size(), 3U);
}

TEST(Plan, PipelinesAreComparedOrLeftOutWithAReason) {
  const auto said = [](const std::string& model, const PlanRequest& request) {
    std::string text;
    for (const std::string& line : make_plan(facts(model), request, {}).explanation) {
      text += line + "\n";
    }
    return text;
  };
  PlanRequest request = request_for("v5e:2x4");
  EXPECT_NE(said("llama-3-8b", request).find("The best pipeline is v5e:2x4 with "),
            std::string::npos);
  EXPECT_NE(said("gemma-3-27b", request)
                .find("No pipelines: its 62 layers do not divide into alike stages."),
            std::string::npos);
  request = request_for("v5p:2x2x1");
  EXPECT_NE(said("gemma-2-9b", request).find("divide into 3, 7, 21 alike stages."),
            std::string::npos);
  // Asked for.
  request = request_for("v5e:2x4");
  request.stages = 2;
  for (const Row& row : make_plan(facts("llama-3-8b"), request, {}).rows) {
    EXPECT_EQ(row.candidate.stages, 2);
  }
  request.stages = 3;
  EXPECT_NE(error_of("llama-3-8b", request, Code::kInvalidArgument).find("v5e:2x4: 1, 2, 4, 8"),
            std::string::npos);
}

// Eight heads that more devices cannot share, weights too large for eight.
TEST(Plan, APipelineWinsWhereHeadsDoNotDivide) {
  ModelFacts wide = facts("llama-3.1-70b");
  for (ModelFacts::Attention& layer : wide.attention) layer.heads = layer.kv_heads = 8;
  const PlanRequest request = request_for("v5e:4x4");
  const Plan plan = make_plan(wide, request, {});
  EXPECT_GT(plan.rows.front().candidate.stages, 1);
  EXPECT_EQ(plan.rows.front().candidate.tensor, 8);
  std::string text;
  for (const std::string& line : plan.explanation) text += line + "\n";
  EXPECT_NE(text.find("Only pipelines fit"), std::string::npos) << text;
  EXPECT_NE(text.find("v5e:4x4 with pipe=2, tensor=8 (sequence) is best"), std::string::npos)
      << text;
}

TEST(Plan, EveryPublishedSizeFindsASlice) {
  for (const char* name : {"llama-3-8b", "llama-3.1-70b", "gemma-3-27b", "qwen3-32b",
                           "qwen3-30b-a3b", "mixtral-8x7b", "deepseek-v3"}) {
    const Plan plan = make_plan(facts(name), request_for("auto"), {});
    EXPECT_TRUE(plan.rows.front().fits()) << name;
  }
}

TEST(Plan, TheSmallestSliceThatMeetsTheTargetsIsFirst) {
  PlanRequest request = request_for("v5e:auto");
  const int64_t chips =
      make_plan(facts("llama-3-8b"), request, {}).rows.front().candidate.slice.chips();
  request.max_tpot = 0.008;
  const Plan fast = make_plan(facts("llama-3-8b"), request, {});
  EXPECT_GT(fast.rows.front().candidate.slice.chips(), chips);
  EXPECT_LE(fast.rows.front().tpot, 0.008);
  request.max_tpot = 1e-6;
  const Plan none = make_plan(facts("llama-3-8b"), request, {});
  EXPECT_NE(none.explanation.at(1).find("Nothing meets the targets"), std::string::npos);
}

TEST(Plan, WhatDoesNotFitSaysWhatWould) {
  const std::string error =
      error_of("llama-3.1-70b", request_for("v5e:2x4"), Code::kResourceExhausted);
  EXPECT_NE(error.find("GiB are missing"), std::string::npos) << error;
  EXPECT_NE(error.find("What would do: "), std::string::npos) << error;
  EXPECT_NE(error.find("v5e:4x4"), std::string::npos) << error;
  EXPECT_NE(error.find("no batch is small enough"), std::string::npos) << error;
  PlanRequest large = request_for("v5e:2x2");
  large.work.batch = 4096;
  EXPECT_NE(error_of("llama-3-8b", large, Code::kResourceExhausted).find("with --batch"),
            std::string::npos);
}

TEST(Plan, ImpossibleWishesAreRefusedWithWhatIsPossible) {
  EXPECT_NE(error_of("llama-3-8b", request_for("v9:2x2"), Code::kInvalidArgument)
                .find("v4, v5e, v5p, v6e, tpu7x"),
            std::string::npos);
  EXPECT_NE(
      error_of("llama-3-8b", request_for("v5e:2x2x2"), Code::kInvalidArgument).find("v5e:2x4"),
      std::string::npos);
  PlanRequest request = request_for("v5e:2x4");
  request.tensor = 3;
  EXPECT_NE(error_of("llama-3-8b", request, Code::kInvalidArgument).find("8 devices"),
            std::string::npos);
  request.topology = "v5e:8x8";  // 32 heads
  request.tensor = 64;
  EXPECT_NE(error_of("llama-3-8b", request, Code::kInvalidArgument).find("1, 2, 4, 8, 16, 32"),
            std::string::npos);
  request = request_for("v5e:2x2");
  request.strategy = "expert";
  EXPECT_NE(error_of("llama-3-8b", request, Code::kInvalidArgument).find("model has no experts"),
            std::string::npos);
  request.strategy = "context";  // 8 KV heads and 4 devices: no use
  const std::string error = error_of("llama-3-8b", request, Code::kInvalidArgument);
  EXPECT_NE(error.find("divide: 1, 2, 4; "), std::string::npos) << error;
  EXPECT_NE(error.find("tensor=4 (ulysses)"), std::string::npos) << error;
  request = request_for("v5e:2x4");
  request.work.input_len = 9000;
  EXPECT_NE(error_of("llama-3-8b", request, Code::kInvalidArgument).find("the model allows 8192"),
            std::string::npos);
}

TEST(Plan, AReplicaRunsOnAPartOfTheSlice) {
  const auto part = [](const char* slice, int64_t tensor) {
    const Slice whole = parse_slice(slice);
    const auto found = replica_slice({whole, tensor, whole.devices() / tensor, "tensor"});
    return found ? found->name : "";
  };
  EXPECT_EQ(part("v5e:2x4", 8), "v5e:2x4");
  EXPECT_EQ(part("v5e:2x4", 4), "v5e:2x2");
  EXPECT_EQ(part("v5e:4x4", 8), "v5e:2x4");
  EXPECT_EQ(part("v5e:2x4", 1), "v5e:1x1");
  EXPECT_EQ(part("tpu7x:2x2x1", 1), "");  // half a chip
  // All parts are slices that can be compiled for.
  for (const Chip& chip : chips()) {
    for (const std::string& slice : known_slices(chip)) {
      for (int64_t tensor = 1; tensor <= parse_slice(slice).devices(); tensor *= 2) {
        const std::string name = part(slice.c_str(), tensor);
        if (name.empty()) continue;
        EXPECT_EQ(parse_slice(name).name, name);
      }
    }
  }
}

ProgramReport report_of(const Candidate& candidate, double seconds) {
  ProgramReport report;
  report.weight_bytes = int64_t{4} << 30;
  report.cache_bytes = int64_t{1} << 30;
  report.temporary_bytes = int64_t{1} << 29;
  report.code_bytes = 1 << 20;
  report.schedule.seconds = seconds / static_cast<double>(candidate.tensor);
  report.schedule.hbm_limit = report.schedule.limit_seconds = report.schedule.seconds / 2;
  report.schedule.bound = "HBM";
  return report;
}

TEST(Plan, PricesDecideWhereSlicesAreSearched) {
  PlanRequest request = request_for("auto");
  const auto best = [&](const char* prices) {
    request.price_per_chip_hour = parse_prices(prices);
    return make_plan(facts("llama-3-8b"), request, {}).rows.front().candidate.slice.chip.name;
  };
  EXPECT_EQ(best("v5e=1.2"), "v5e");
  EXPECT_EQ(best("v5e=1,v6e=100"), "v5e");
  EXPECT_EQ(best("v5e=100,v6e=1"), "v6e");
  for (const char* bad :
       {"free", "v5e=", "v5e=-1", "v9z=1", "1,v5e=inf", "nan", "v5e=1,v5e=2", "1,2"}) {
    EXPECT_THROW(parse_prices(bad), Error) << bad;
  }
}

TEST(Plan, AChipWithoutAPriceIsNamed) {
  PlanRequest request = request_for("v5e:2x2");
  request.price_per_chip_hour = parse_prices("v6e=2");
  const std::string sentence =
      "No price was given for v5e; add v5e=PRICE to --price-per-chip-hour.";
  EXPECT_EQ(make_plan(facts("llama-3-8b"), request, {}).explanation.back(), sentence);
  request.topology = "v5e:auto";
  EXPECT_NE(error_of("llama-3-8b", request, Code::kInvalidArgument).find("no price for the chip"),
            std::string::npos);
}

TEST(Plan, AMissedTargetIsWrittenWithDigitsThatTellItApart) {
  PlanRequest request = request_for("v5e:2x2");
  const Row best = make_plan(facts("llama-3-8b"), request, {}).rows.front();
  request.max_tpot = best.tpot * 0.9999;
  const Plan plan = make_plan(facts("llama-3-8b"), request, {});
  EXPECT_FALSE(plan.meets_targets());
  const std::string& missed = plan.rows.front().missed;
  const double is = std::stod(missed.substr(missed.find("is ") + 3));
  EXPECT_GT(is, *request.max_tpot * 1e3) << missed;
}

TEST(Plan, WhatTheCompilerSaysDecides) {
  std::vector<std::string> compiled;
  PlanRequest request = request_for("v5e:2x4");
  request.price_per_chip_hour = {{"", 1.0}};
  const auto compile = [&](const Candidate& candidate, const Workload&, const std::string& phase) {
    compiled.push_back(candidate.mesh() + " " + phase);
    return report_of(candidate, phase == "decode" ? 0.08 : 0.4);
  };
  const Plan plan = make_plan(facts("llama-3-8b"), request, compile);
  EXPECT_EQ(compiled.size(), 6U);
  const Row& first = plan.rows.front();
  ASSERT_TRUE(first.compiled());
  EXPECT_EQ(first.candidate.tensor, 8);  // that took least
  EXPECT_EQ(first.tpot, 0.01);
  EXPECT_EQ(first.ttft, 0.05);
  EXPECT_EQ(first.tokens_per_second, 64 * 256 / (64 * 0.05 + 256 * 0.01));
  EXPECT_NEAR(*first.price_per_million, 8.0 / 3600 / first.tokens_per_second * 1e6, 1e-9);
  EXPECT_EQ(first.weight_bytes, 4.0 * (1 << 30));
  const Json json = to_json(plan, request);
  EXPECT_EQ(json["candidates"][0]["compiled"], true);
  EXPECT_EQ(json["candidates"][0]["code_bytes"], 2.0 * (1 << 20));
  const std::string table = to_table(plan, request);
  EXPECT_NE(table.find("is best"), std::string::npos) << table;
  EXPECT_NE(table.find("HBM limits its decode step"), std::string::npos) << table;
}

TEST(Plan, ACompilationThatDiesIsReportedAndThePlanGoesOn) {
  const auto compile = [](const Candidate& candidate, const Workload&, const std::string&) {
    if (candidate.tensor == 4) fail(Code::kAborted, "killed by signal 11");
    return report_of(candidate, 0.08);
  };
  const PlanRequest request = request_for("v5e:2x4");
  const Plan plan = make_plan(facts("llama-3-8b"), request, compile);
  EXPECT_TRUE(plan.rows.front().compiled());
  EXPECT_NE(to_table(plan, request).find("killed by signal 11"), std::string::npos);
  const auto never = [](const Candidate&, const Workload&, const std::string&) -> ProgramReport {
    fail(Code::kDeadlineExceeded, "took too long");
  };
  EXPECT_FALSE(plan.compiles_failed());  // not all
  const Plan formulas = make_plan(facts("llama-3-8b"), request, never);
  EXPECT_FALSE(formulas.rows.front().compiled());
  EXPECT_TRUE(formulas.rows.front().fits());
  EXPECT_TRUE(formulas.compiles_failed());
  EXPECT_NE(formulas.explanation.back().find("took too long"), std::string::npos);
}

}  // namespace
}  // namespace ttpu::plan
