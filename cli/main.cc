// The command `ttpu`.
#include <cstdio>
#include <exception>

#include "cli/commands.h"
#include "ttpu/base/error.h"
#include "ttpu/base/log.h"

int main(int argc, char** argv) {
  CLI::App app("TTPU runs Hugging Face transformers models through PJRT, on CPU here and on TPU.");
  app.require_subcommand(1);
  app.set_version_flag("--version", "ttpu " TTPU_VERSION);
  app.footer("Each command has its own --help. TTPU_LOG=info shows what happens.");
  try {
    ttpu::init_logging();
    add_generate_command(app);
    add_chat_command(app);
    add_bench_command(app);
    add_compile_command(app);
    add_plugin_command(app);
    add_doctor_command(app);
    CLI11_PARSE(app, argc, argv);
    return 0;
  } catch (const ttpu::Error& error) {
    std::fprintf(stderr, "ttpu: %s: %s\n", ttpu::code_name(error.code()), error.what());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "ttpu: %s\n", error.what());
  }
  return 1;
}
