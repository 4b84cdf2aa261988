// What the thread of the engine allocates between two steady decode steps: every call of operator
// new that is made by this program or by the standard library for it. The plugin's own are not
// counted: they are told by the address that calls.
#include <cstdlib>
#include <cstring>
#include <map>
#include <new>
#include <string>

#include <dlfcn.h>
#include <gtest/gtest.h>

#include "ttpu/engine/engine.h"

namespace {

thread_local bool g_counting = false;
thread_local int64_t g_count = 0;

bool is_plugins(const void* caller) {
  Dl_info info{};
  return dladdr(caller, &info) != 0 && info.dli_fname != nullptr &&
         std::strstr(info.dli_fname, "pjrt") != nullptr;
}

void* allocate(size_t size, const void* caller) {
  if (g_counting) {
    g_counting = false;
    if (!is_plugins(caller)) ++g_count;
    g_counting = true;
  }
  void* memory = std::malloc(size == 0 ? 1 : size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

// Where only one of a pair is inlined, gcc believes that new and free do not belong together.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"
#endif
void* operator new(size_t size) { return allocate(size, __builtin_return_address(0)); }
void* operator new[](size_t size) { return allocate(size, __builtin_return_address(0)); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, size_t) noexcept { std::free(memory); }

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
  g_count = 0;
  g_counting = true;
  for (int i = 0; i < 4; ++i) engine.step();
  g_counting = false;
  EXPECT_EQ(tokens - before, 8 * 4);
  EXPECT_EQ(g_count, 0) << "in four steps of eight sequences";
  while (engine.step()) {
  }
}

}  // namespace
}  // namespace ttpu::engine
