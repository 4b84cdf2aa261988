// llama.cpp through its library, as its own `llama-simple` uses it: one process that loads a model
// and answers a task.
//
//   run_llama MODEL CONTEXT NEW_TOKENS < PROMPTS        a line of token ids for each prompt
//
// Prints what the Python workers print (common.py): for each prompt when it was given, and when its
// first and its last token came, in seconds of CLOCK_MONOTONIC.
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <iostream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "llama.h"

namespace {

double now() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "[run_llama] %s\n", what.c_str());
  std::exit(1);
}

std::vector<std::vector<llama_token>> read_prompts() {
  std::vector<std::vector<llama_token>> prompts;
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::vector<llama_token> prompt;
    for (llama_token token = 0; words >> token;) prompt.push_back(token);
    if (!prompt.empty()) prompts.push_back(std::move(prompt));
  }
  return prompts;
}

struct Times {
  double start = 0;
  double first = 0;
  double last = 0;
};

// Greedy, to `count` tokens whatever they are.
Times answer(llama_context* context, llama_sampler* greedy, std::vector<llama_token> prompt,
             int count) {
  llama_memory_clear(llama_get_memory(context), true);
  Times times;
  times.start = now();
  llama_batch batch = llama_batch_get_one(prompt.data(), static_cast<int32_t>(prompt.size()));
  llama_token token = 0;
  for (int i = 0; i < count; ++i) {
    if (llama_decode(context, batch) != 0) fail("llama_decode failed; is the context too small?");
    token = llama_sampler_sample(greedy, context, -1);
    times.last = now();
    if (i == 0) times.first = times.last;
    batch = llama_batch_get_one(&token, 1);
  }
  return times;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) fail("give MODEL CONTEXT NEW_TOKENS");
  const auto threads = static_cast<int32_t>(std::thread::hardware_concurrency());
  ggml_backend_load_all();
  llama_model* model = llama_model_load_from_file(argv[1], llama_model_default_params());
  if (model == nullptr) fail(std::string("cannot load ") + argv[1]);
  llama_context_params params = llama_context_default_params();
  params.n_ctx = static_cast<uint32_t>(std::atoi(argv[2]));
  params.n_batch = 2048;  // as its command-line tools have it
  params.n_threads = threads;
  params.n_threads_batch = threads;
  llama_context* context = llama_init_from_model(model, params);
  if (context == nullptr) fail("cannot make a context");
  llama_sampler* greedy = llama_sampler_init_greedy();
  const int count = std::atoi(argv[3]);
  std::printf("{\"version\": \"llama.cpp\", \"requests\": [");
  const char* separator = "";
  for (const auto& prompt : read_prompts()) {
    const Times times = answer(context, greedy, prompt, count);
    std::printf("%s{\"start\": %.6f, \"first\": %.6f, \"last\": %.6f, \"tokens\": %d}", separator,
                times.start, times.first, times.last, count);
    separator = ", ";
  }
  std::printf("]}\n");
  llama_sampler_free(greedy);
  llama_free(context);
  llama_model_free(model);
}
