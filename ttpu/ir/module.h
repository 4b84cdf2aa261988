// A program: functions and meshes. The function "main" is the one that runs.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ttpu/ir/function.h"

namespace ttpu::ir {

class Module {
 public:
  explicit Module(std::string name = "ttpu");
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;

  const std::string& name() const { return name_; }
  // Throws kAlreadyExists when the name is taken.
  Function& add_function(std::string name = "main");
  Function* find_function(std::string_view name) const;  // null when missing
  // Of functions that served to make others; nobody may call it.
  void remove_function(const Function& function);
  const std::vector<std::unique_ptr<Function>>& functions() const { return functions_; }

  void add_mesh(Mesh mesh);
  const Mesh* find_mesh(std::string_view name) const;
  const std::vector<Mesh>& meshes() const { return meshes_; }

  // Textual StableHLO (program format "mlir").
  std::string to_string() const;
  // Throws with the function, the operator and the reason when the program is not whole: an open
  // body, an operand out of reach, results that do not follow from the operands, a missing callee
  // or mesh, an alias between different shapes.
  void verify() const;

 private:
  std::string name_;
  std::vector<std::unique_ptr<Function>> functions_;
  std::vector<Mesh> meshes_;
};

}  // namespace ttpu::ir
