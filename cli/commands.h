// The subcommands of `ttpu`, one file each. Each adds itself to the application.
#pragma once

#include <CLI/CLI.hpp>

void add_bench_command(CLI::App& app);
void add_bench_serve_command(CLI::App& bench);  // below `bench`
void add_chat_command(CLI::App& app);
void add_compile_command(CLI::App& app);
void add_doctor_command(CLI::App& app);
void add_embed_command(CLI::App& app);
void add_generate_command(CLI::App& app);
// Gives how many of the arguments are for `app`: the command that `launch` starts, behind --, is
// taken as it is.
int add_launch_command(CLI::App& app, int argc, char** argv);
void add_plan_command(CLI::App& app);
void add_plugin_command(CLI::App& app);
void add_serve_command(CLI::App& app);
