// The command `ttpu`.
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>

#include "cli/commands.h"
#include "ttpu/base/error.h"
#include "ttpu/base/log.h"
#include "ttpu/base/utf8.h"

int main(int argc, char** argv) {
  CLI::App app("TTPU runs Hugging Face transformers models through PJRT, on CPU here and on TPU.");
  app.require_subcommand(1);
  app.set_version_flag("--version", "ttpu " TTPU_VERSION);
  app.footer("Each command has its own --help. TTPU_LOG=info shows what happens.");
  std::signal(SIGXFSZ, SIG_IGN);  // a limit on file sizes is an error of the write, not the end
  try {
    ttpu::init_logging();
    add_generate_command(app);
    add_embed_command(app);
    add_chat_command(app);
    add_serve_command(app);
    add_bench_command(app);
    add_compile_command(app);
    add_plan_command(app);
    const int own = add_launch_command(app, argc, argv);
    add_plugin_command(app);
    add_doctor_command(app);
    CLI11_PARSE(app, own, argv);
    if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return 0;
    std::fprintf(stderr,
                 "ttpu: the output could not be written: %s; free some space, or write elsewhere\n",
                 std::strerror(errno));
  } catch (const ttpu::Error& error) {
    // What it quotes may be bytes of a file.
    std::fprintf(stderr, "ttpu: %s: %s\n", ttpu::code_name(error.code()),
                 ttpu::utf8_repaired(error.what()).c_str());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "ttpu: %s\n", ttpu::utf8_repaired(error.what()).c_str());
  }
  return 1;
}
