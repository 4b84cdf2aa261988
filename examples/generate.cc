// Answers a question with the library: load a model, put the question through its chat template,
// print the answer as it comes.
//
//   build/examples/generate MODEL 'What is the capital of France?'
//
// MODEL is a folder in Hugging Face layout, a .gguf file, or a hub id.
#include <cstdio>
#include <string>

#include "ttpu/base/error.h"
#include "ttpu/engine/generator.h"
#include "ttpu/io/hub.h"

namespace {

void answer(const std::string& model, const std::string& question) {
  ttpu::engine::EngineOptions options;
  options.dtype = ttpu::DType::kBF16;
  options.max_model_len = 1024;
  options.lazy_programs = true;  // load what was compiled before when it is first needed
  ttpu::engine::Generator generator(ttpu::io::resolve_model(model), options);

  ttpu::engine::Request request;
  request.prompt =
      generator.encode_chat(ttpu::Json::array({{{"role", "user"}, {"content", question}}}));
  request.sampling.temperature = 0;  // greedy
  request.sampling.max_tokens = 128;
  generator.generate(request, [](const std::string& piece) {
    std::fputs(piece.c_str(), stdout);
    std::fflush(stdout);
  });
  std::puts("");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s MODEL QUESTION\n", argv[0]);
    return 2;
  }
  try {
    answer(argv[1], argv[2]);
    return 0;
  } catch (const ttpu::Error& error) {
    std::fprintf(stderr, "%s: %s\n", ttpu::code_name(error.code()), error.what());
    return 1;
  }
}
