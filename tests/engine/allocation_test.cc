// What the thread of the engine allocates between two steady decode steps.
#include <gtest/gtest.h>

#include "tests/support/allocations.h"
#include "ttpu/engine/engine.h"

namespace ttpu::engine {
namespace {

TEST(Allocation, ASteadyDecodeStepAllocatesNothing) {
  EngineOptions options;
  options.dtype = DType::kF32;
  options.max_model_len = 64;
  options.block_size = 32;
  options.max_num_seqs = 8;
  options.max_num_batched_tokens = 16;
  Engine engine(std::filesystem::path(TTPU_SOURCE_DIR) / "tests/fixtures/models/llama", options);
  int64_t tokens = 0;
  for (int32_t i = 0; i < 8; ++i) {
    Request request;
    request.prompt = {5, 6, 7, 8 + i};
    request.sampling.max_tokens = 24;
    request.sampling.ignore_eos = true;
    engine.submit(request, [&](const RequestOutput& output) {
      tokens += static_cast<int64_t>(output.tokens.size());
    });
  }
  while (tokens < 8 * 10) engine.step();
  const int64_t before = tokens;
  {
    const testing::HostAllocations allocations;
    for (int i = 0; i < 4; ++i) engine.step();
    EXPECT_EQ(allocations.count(), 0) << "in four steps of eight sequences";
  }
  EXPECT_EQ(tokens - before, 8 * 4);
  while (engine.step()) {
  }
}

}  // namespace
}  // namespace ttpu::engine
