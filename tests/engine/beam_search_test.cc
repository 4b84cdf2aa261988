// Beam search against transformers' generate(num_beams=...), from tools/make_beam_fixture.py.
#include "ttpu/engine/beam_search.h"

#include <gtest/gtest.h>

#include "ttpu/base/error.h"
#include "ttpu/base/file.h"
#include "ttpu/base/json.h"

namespace ttpu::engine {
namespace {

std::filesystem::path fixture(const std::string& name) {
  return std::filesystem::path(TTPU_SOURCE_DIR) / "tests/fixtures" / name;
}

EngineOptions options() {
  EngineOptions options;
  options.dtype = DType::kF32;
  options.max_model_len = 48;
  options.block_size = 4;
  options.max_num_seqs = 3;  // fewer than some searches have beams
  options.max_num_batched_tokens = 16;
  return options;
}

TEST(BeamSearch, FindsTheAnswersOfTransformers) {
  const Json cases = read_json(fixture("beam_search.json"));
  for (const Json& item : cases) {
    SCOPED_TRACE(item.dump());
    Engine engine(fixture("models/" + item["model"].get<std::string>()), options());
    BeamSearchParams params;
    params.beam_width = item["beam_width"];
    params.max_tokens = item["max_tokens"];
    params.length_penalty = item["length_penalty"];
    params.early_stopping = item["early_stopping"];
    params.ignore_eos = true;
    if (!item["end_token"].is_null()) params.stop_token_ids = {item["end_token"].get<int32_t>()};
    const auto answers = beam_search(engine, item["prompt"].get<std::vector<int32_t>>(), params);
    ASSERT_EQ(answers.size(), item["answers"].size());
    for (size_t i = 0; i < answers.size(); ++i) {
      EXPECT_EQ(answers[i].tokens, item["answers"][i]["tokens"].get<std::vector<int32_t>>());
      EXPECT_NEAR(answers[i].score, item["answers"][i]["score"].get<double>(), 1e-3);
    }
    EXPECT_GT(engine.metrics().cached_tokens, engine.metrics().prompt_tokens / 2)
        << "beams share blocks";
    while (engine.step()) {
    }
    EXPECT_EQ(engine.metrics().cache_usage, 0) << "no block leaks";
  }
}

TEST(BeamSearch, RefusesWhatItCannotDo) {
  Engine engine(fixture("models/llama"), options());
  BeamSearchParams params;
  params.beam_width = 11;
  EXPECT_THROW(beam_search(engine, {1, 2}, params), Error);
  params.beam_width = 2;
  EXPECT_THROW(beam_search(engine, {}, params), Error);
  params.max_tokens = 0;
  EXPECT_THROW(beam_search(engine, {1, 2}, params), Error);
}

}  // namespace
}  // namespace ttpu::engine
