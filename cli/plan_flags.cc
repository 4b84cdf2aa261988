#include "cli/plan_flags.h"

#include <chrono>
#include <filesystem>
#include <iostream>

#include "ttpu/pjrt/plugin.h"

namespace ttpu::cli {

std::string PlanFlags::name() const { return std::filesystem::path(model).stem().string(); }

bool PlanFlags::compiles() const {
  if (analytic_only || compile == 0) return false;
  const std::filesystem::path plugin = pjrt::find_plugin("tpu");
  if (!std::filesystem::exists(plugin)) {
    fail(Code::kNotFound,
         "[plan] there is no TPU plugin at '{}'; run `ttpu plugin install tpu`, or take "
         "--analytic-only, which compiles nothing",
         plugin.string());
  }
  return true;
}

engine::ChildCompile plan_child(const PlanFlags& flags, const Json& config,
                                const std::string& topology,
                                const std::vector<std::string>& arguments) {
  const std::string self = std::filesystem::read_symlink("/proc/self/exe").string();
  engine::ChildCompile child;
  child.command = {self, "compile", flags.model, "--topology", topology};
  child.command.insert(child.command.end(), arguments.begin(), arguments.end());
  child.timeout = std::chrono::seconds(flags.timeout);
  if (!flags.no_cache) child.identity = config.dump();
  return child;
}

plan::ProgramReport compile_and_tell(const engine::ChildCompile& child, const std::string& what) {
  const bool kept = engine::is_kept(child);
  std::cerr << fmt::format("[plan] {}: ", what) << (kept ? "kept from before\n" : "compiling ... ")
            << std::flush;
  const auto start = std::chrono::steady_clock::now();
  const auto seconds = [&start] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  try {
    plan::ProgramReport report = engine::compile_in_child(child);
    if (!kept) std::cerr << fmt::format("{:.1f} s\n", seconds());
    return report;
  } catch (const Error& error) {
    std::cerr << fmt::format("failed after {:.1f} s\n", seconds());
    // What a compiler that was stopped had written does not say why.
    if (error.code() != Code::kDeadlineExceeded) throw;
    fail(Code::kDeadlineExceeded, "[plan] compiling took longer than --timeout {} s; raise it",
         child.timeout.count());
  }
}

void refuse_failed_compiles(bool failed) {
  if (!failed) return;
  std::cout << std::flush;
  fail(Code::kAborted,
       "[plan] no candidate could be compiled, and the plan is by formulas alone; its last "
       "sentences say why, and --analytic-only asks for no more");
}

}  // namespace ttpu::cli
