// Mosaic kernels for TPU: functions of StableHLO around `tpu_custom_call`s, one for each shape and
// chip. An optional tool, tools/tpu_kernels/ (`make tpu-kernels`), lowers them when a program first
// asks; what it made is kept in cache_dir()/tpu-kernels.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "ttpu/base/error.h"
#include "ttpu/base/json.h"
#include "ttpu/ir/function.h"

namespace ttpu::kernels {

// What an operator got.
struct KernelChoice {
  std::string op;
  std::string implementation;  // "a Mosaic kernel" or "the StableHLO reference"
  std::string reason;          // why no kernel; empty for one
  bool operator==(const KernelChoice&) const = default;
};
std::string to_string(const KernelChoice& choice);

// The digest of the tool's parts; nothing when it is not installed, or an older one is.
std::optional<std::string> tpu_kernel_tool();

class TpuKernels {
 public:
  // The chip as topologies are named: "v5e".
  explicit TpuKernels(std::string chip) : chip_(std::move(chip)) {}

  const std::string& chip() const { return chip_; }

  // Whether there is a kernel for `key`; the reason is noted when there is none.
  bool has(const Json& key);
  // The function of `module` that computes what `key` says (see tools/tpu_kernels/kernels.py), with
  // these arguments and results; made once. Null, with the reason noted, when there is none.
  const ir::Function* function(ir::Module& module, const Json& key,
                               const std::vector<Shape>& arguments,
                               const std::vector<Shape>& results, ir::TextBody cost);

  // For what the tool need not be asked.
  void note_reference(const std::string& op, const std::string& reason);
  // Whether the compiler's error is about kernels of a program rather than the program around them.
  // From then on the operators whose kernels it names have none, or all where it names none, and
  // the program can be built again.
  bool take_back(const std::string& compiler_error);

  bool used() const;
  const std::vector<KernelChoice>& choices() const { return choices_; }  // each kind once

 private:
  struct Lowered {
    std::string text;
    std::string reason;  // no text: why
  };
  const Lowered& lowered(const std::string& key, const std::string& name);
  // Why there is no kernel; empty when there is one.
  std::string reason_against(const Json& key);
  void note(KernelChoice choice);

  std::string chip_;
  std::map<std::string, std::string> refused_;  // by operator: why
  std::map<std::string, Lowered> known_;        // by name
  std::vector<KernelChoice> choices_;
};

// attempt(), which compiles programs with these kernels, or without some after the compiler has
// refused them. `kernels` may be null.
template <typename Attempt>
auto without_refused(TpuKernels* kernels, const Attempt& attempt) {
  while (true) {
    try {
      return attempt();
    } catch (const Error& error) {
      if (kernels == nullptr || !kernels->take_back(error.what())) throw;
    }
  }
}

}  // namespace ttpu::kernels
